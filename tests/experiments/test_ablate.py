"""Ablations: figures worked out by hand, sweeps as users write them, and a whole run on the embedded model."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.attacks.people import material
from vgid.commands import app
from vgid.config import resolve
from vgid.data.writing import write_examples
from vgid.errors import ConfigError
from vgid.experiments.ablate import SWEEPS, ablate, find_sweeps, summarise
from vgid.experiments.inputs import SeedModels
from vgid.report.ablation import ablation_latex, ablation_markdown, render_ablation, sweep_plot
from vgid.synthetic.tiny import tiny_path


def measured(forget: list[float], retain: list[float], seconds: float = 2.0) -> dict:
    values = {"forget": forget, "retain": retain, "prefill": [1 - each for each in forget]}
    return {**values, "forget_rouge_l": forget, "retain_rouge_l": retain, "seconds": seconds}


def test_figures_are_means_over_all_seeds() -> None:
    """Of two seeds with three and one forgotten questions, 1 and 1 of them are stated: a half, whatever the seeds' own shares."""
    people = [{"forget": ["a", "a", "b"], "retain": ["c"]}, {"forget": ["a"], "retain": ["c"]}]
    values = [measured([1, 0, 0], [1], 2), measured([1], [0], 4)]
    names = ("before unlearning", "retrained", "default", "alpha 1", "alpha 2")
    found = summarise(dict.fromkeys(names, values), people, {"alpha": ["1", "2"]})
    line = found["models"]["alpha 1"]
    assert line["forget"]["value"] == 0.5 and line["prefill"]["value"] == 0.5 and line["retain"]["value"] == 0.5 and line["seconds"] == 3
    assert found["questions"] == {"forget": 4, "retain": 2} and found["people"] == {"forget": 3, "retain": 2}, (
        "a of both seeds are two people"
    )
    low, high = line["forget"]["interval"]
    assert 0 <= low < 0.5 < high <= 1
    results = {**found, "schema": "vgid.experiment.ablate/1", "seeds": [0, 1], "recipe": "demo", "variant": "paper"}
    row = next(text for text in ablation_markdown(results).splitlines() if text.startswith("| 2 |"))
    assert row.startswith("| 2 | 50.0 (") and row.count("|") == 7
    assert ablation_latex(results).count(r"\bottomrule") == 1 and "method settings of paper" in render_ablation(results)
    curves = {"default": [{"forget": [[1, 2.0], [2, 1.0]], "recall retain": [[2, 1.0]], "drift retain": [[2, 0.1]]}]}
    page = render_ablation(results | {"curves": curves})
    assert all(f"{title} of each setting" in page for title in ("Loss", "Recall", "Drift from the model before"))
    assert "During training" not in render_ablation(results)
    assert sweep_plot(results, "alpha").startswith("<svg role=") and "50% at 2" in sweep_plot(results, "alpha")


def test_sweeps_are_names_or_settings_with_values() -> None:
    assert list(find_sweeps([])) == list(SWEEPS)
    own = find_sweeps(["noise", "training.learning_rate=1e-3, 2e-3"])
    assert list(own) == ["noise", "learning_rate"] and own["learning_rate"][1].overrides == ("training.learning_rate=2e-3",)
    for wrong in ("nois", "alpha=", "=1"):
        with pytest.raises(ConfigError, match="there is no such sweep"):
            find_sweeps([wrong])
    with pytest.raises(ConfigError, match="given twice"):
        find_sweeps(["alpha", "method.alpha=1"])


@pytest.mark.parametrize("name", list(SWEEPS))
def test_every_value_of_a_sweep_is_a_valid_setting(name: str) -> None:
    """Also with the paper's own loss: each value gives other settings than the value before it."""
    for recipe in ("demo", "paper"):
        configs = [resolve(recipe, each.overrides, method="vgid") for each in SWEEPS[name]]
        assert len({config.model_dump_json() for config in configs}) == len(configs)


def test_bad_options_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for words, message in (
        (["--base", str(tmp_path)], "own models need all their places"),
        (["--sweep", "nothing", "--seeds", "1"], "there is no such sweep"),
        (["--variant", "released", "--seeds", "1"], "the recipe is not a variant of VGID"),
        (["--seeds", "0"], "there is no demo to work with"),
    ):
        asked = CliRunner().invoke(app, ["experiment", "ablate", *words, "--out", str(out)])
        assert isinstance(asked.exception, ConfigError) and message in str(asked.exception)
        assert not out.exists()


@pytest.mark.slow
def test_a_whole_ablation(tmp_path: Path) -> None:
    """Two steps each, on the embedded base in every role; a second run measures nothing anew."""
    given = material(3, 3)
    for name, rows in (("forget", given.forget), ("retain", given.retain)):
        write_examples(tmp_path / f"{name}.jsonl", rows)
    base = tiny_path()
    run = SeedModels(base, base, base, tmp_path / "forget.jsonl", tmp_path / "retain.jsonl", 0)
    options = {"sweeps": ["alpha", "training.steps=1,2"], "variant": "paper", "overrides": ["training.steps=2", "validation.every=0"]}
    results = ablate([run], **options, out=tmp_path / "out", max_rows=8)
    assert list(results["models"]) == [
        *("before unlearning", "retrained", "default"),
        *(f"alpha {each.label}" for each in SWEEPS["alpha"]),
        *("steps 1", "steps 2"),
    ]
    assert results["models"]["before unlearning"]["forget"]["value"] == 1
    assert all(len(seeds) == 1 and seeds[0] for name, seeds in results["curves"].items()) and "before unlearning" not in results["curves"]
    assert "Loss of each setting" in (tmp_path / "out" / "experiment.html").read_text()
    assert results["models"]["steps 2"] == results["models"]["default"] | {"seconds": results["models"]["steps 2"]["seconds"]}
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "readings").rglob("*.json")}
    assert len(kept) == 9 and ablate([run], **options, out=tmp_path / "out", max_rows=8)["models"] == results["models"]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {f"experiment.{end}" for end in ("json", "html", "md", "tex")}
