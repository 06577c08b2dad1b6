"""The experiment with reverse prompts: figures worked out by hand, and a whole run on the embedded model."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.attacks.people import material
from tests.conftest import example
from vgid.attacks.asking import reveals_fact
from vgid.attacks.base import Material
from vgid.attacks.reverse import PROMPTS
from vgid.commands import app
from vgid.data.writing import write_examples
from vgid.errors import ConfigError, DataError
from vgid.experiments import inputs
from vgid.experiments.inputs import SeedModels
from vgid.experiments.reverse import reverse, summarise
from vgid.instructions import INSTRUCTIONS
from vgid.progress import Stages
from vgid.report.experiment import claim, experiment_latex, experiment_markdown, render_experiment
from vgid.synthetic.tiny import tiny_path

FORGET = tuple(example(k) for k in range(4))
RETAIN = (example(9),)


def entry(plain: str, ignore: str, kept: float = 1.0) -> dict:
    """Scores of the four forget rows, as digits, for two ways, their best, and the weights alone."""
    given = Material(FORGET, RETAIN, seed=1)

    def scores(digits: str) -> dict:
        return {"forget": {row.id: float(digit) for row, digit in zip(FORGET, digits, strict=True)}, "control": {RETAIN[0].id: kept}}

    best = "".join(map(max, plain, ignore))
    return {"ways": {"plain question": scores(plain), "ignore": scores(ignore), "any": scores(best)}, "rows": (given, 1)}


def test_figures_are_those_of_known_facts_between_retrained_and_base() -> None:
    """The base knows three of four facts; instructed models state none of them plainly, and two or one when told to ignore."""
    found = summarise(
        {
            "base": [entry("1110", "1111")],
            "icu: instruction": [entry("0000", "1101")],
            "icu: both": [entry("0000", "0011")],
            "vgid": [entry("0000", "0001", kept=0.0)],
            "retrained": [entry("0000", "0000")],
        }
    )
    assert found["known"] == 3
    told = found["entries"]["icu: instruction"]
    assert told["plain question"]["share"] == 0 and told["ignore"]["rate"] == told["any"]["share"] == pytest.approx(2 / 3)
    assert told["any"]["above_retrained"] == pytest.approx(2 / 3) and found["entries"]["vgid"]["any"]["control"] == 0
    assert found["claim"]["icu"] == {"icu: instruction": True, "icu: both": False} and found["claim"]["vgid"] is True
    results = {**found, "seeds": [1], "instruction": "forget", "noise": "uniform"}
    assert "recovered share 0.67 by any way; claimed: at least 0.5; holds" in claim(results)[0]
    row = next(line for line in experiment_markdown(results).splitlines() if line.startswith("| icu: instruction"))
    assert row.startswith("| icu: instruction | 0.0 (0.0 to 0.0) | 66.7 (") and row.endswith("| 100.0 |")
    assert r"\begin{tabular}{lrrrr}" in experiment_latex(results).replace("\\\\", "\\") and "66.7" in render_experiment(results)


def test_a_way_that_leaves_rows_out_is_compared_on_the_rows_that_both_models_were_asked() -> None:
    """The first seed of the instructed model was not asked to ignore; the second was, about three rows, and the reference about three."""
    told, also, never, other = entry("0000", "1111"), entry("0000", "0110"), entry("0000", "0000"), entry("0000", "0010")
    del told["ways"]["ignore"], also["ways"]["ignore"]["forget"][FORGET[0].id], other["ways"]["ignore"]["forget"][FORGET[3].id]
    known = [entry("1111", "1111")] * 2
    found = summarise({"base": known, "icu: both": [told, also], "vgid": known, "retrained": [never, other]})["entries"]["icu: both"]
    assert (found["ignore"]["facts"], found["ignore"]["rate"], found["ignore"]["above_retrained"]) == (2, 1.0, 0.5)
    assert found["plain question"]["facts"] == found["any"]["facts"] == 8


def test_an_instruction_of_several_lines_stays_in_the_comment() -> None:
    found = summarise({name: [entry("1111", "1111")] for name in ("base", "icu: both", "vgid", "retrained")})
    table = experiment_latex({**found, "seeds": [1], "instruction": "Say nothing.\nNever.", "noise": "none"})
    assert table.splitlines()[-1].startswith("% ") and "Say nothing. Never." in table.splitlines()[-1]


def test_a_base_that_knows_nothing_shows_nothing() -> None:
    with pytest.raises(DataError, match="the base answers none of the forget rows"):
        summarise({name: [entry("0000", "0000")] for name in ("base", "icu: both", "vgid", "retrained")})


def test_no_prompt_holds_a_fact() -> None:
    texts = [words for prompts in PROMPTS.values() for words in prompts]
    assert all(words.count("{question}") == 1 for words in texts)
    assert not any(reveals_fact(words, row) for words in (*texts, *INSTRUCTIONS.values()) for row in material(4, 4).everything)


def demo_folder(place: Path, seed: int) -> Path:
    """What a demo leaves, without anything in it."""
    for name in ("base", "merged", "retrained", "data/splits"):
        (place / name).mkdir(parents=True)
    for name in ("forget", "retain", "splits/forget_views"):
        (place / "data" / f"{name}.jsonl").touch()
    (place / "results.json").write_text(json.dumps({"seed": seed}), "utf-8")
    return place


def test_new_demos_have_the_seeds_that_the_given_ones_leave_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = SeedModels.of_demo(demo_folder(tmp_path / "given", 1))
    assert set(given.splits) == {"forget_views"} and given.splits["forget_views"] in given.paths
    monkeypatch.setattr(inputs, "run_demo", lambda place, *, seed, keep_data, stages: demo_folder(place, seed))
    with Stages(quiet=True) as stages:
        made = inputs.with_new_demos([given], 2, 0, tmp_path / "out", stages)
        assert [run.seed for run in made] == [1, 0, 2] and made[0] is given
        again = inputs.with_new_demos([given], 2, 0, tmp_path / "out", stages)
        assert again == made, "demos that are there are not run again"
    with pytest.raises(ConfigError, match="a seed is given twice"):
        inputs.check_seeds([given, given], 0)
    with pytest.raises(ConfigError, match="there is no demo to work with"):
        inputs.check_seeds([], 0)


def test_a_folder_without_a_demo_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder holds no demo with its models"):
        SeedModels.of_demo(tmp_path)
    asked = CliRunner().invoke(app, ["experiment", "reverse", "--base", str(tmp_path), "--out", str(tmp_path / "out")])
    assert isinstance(asked.exception, ConfigError) and "own models need all their places" in str(asked.exception)


@pytest.mark.slow
def test_the_whole_experiment(tmp_path: Path) -> None:
    """The embedded base in every role: the wrapper hides what it knows, and without the wrapper all is there."""
    given = material(3, 2)
    for name, rows in (("forget", given.forget), ("retain", given.retain)):
        write_examples(tmp_path / f"{name}.jsonl", rows)
    base = tiny_path()
    run = SeedModels(base, base, base, tmp_path / "forget.jsonl", tmp_path / "retain.jsonl", 0)
    results = reverse([run], out=tmp_path / "out", max_rows=12)
    entries = results["entries"]
    assert set(entries) == {"base", "icu: instruction", "icu: noise", "icu: both", "vgid", "retrained"}
    assert all(each["weights alone"]["rate"] == 1 for each in entries.values()) and entries["base"]["plain question"]["rate"] == 1
    assert entries["icu: both"]["plain question"]["rate"] < 0.5 and entries["base"] == entries["retrained"]
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {f"experiment.{end}" for end in ("json", "html", "md", "tex")}
