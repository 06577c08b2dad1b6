"""Plans, and mistakes that are errors before anything runs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vgid.comparison.plan import NO_EARLY_STOP, Tuned, all_entry_names, make_plan, parse_entries, variants
from vgid.comparison.time_budget import count_steps
from vgid.config import load_config, resolve
from vgid.demo.targets import LEARNING_RATES, TARGETS
from vgid.errors import ConfigError


def test_everything_is_all_methods_and_variants() -> None:
    names = all_entry_names()
    assert {"vgid", "ga", "smfa", "manu", "icu", "vgid:on-policy", "vgid:paper"} <= set(names)
    assert not {"untouched", "retrain", "finetune"} & set(names)
    plan = make_plan("tiny", [], seeds=1)
    assert sorted(each.name for each in plan.entries) == sorted(names) and plan.people == 24 and plan.forget == 6


def test_all_take_the_same_steps_with_settings_of_their_own() -> None:
    plan = make_plan("tiny", ["ga", "vgid:noise-only", "mmunlearner"], seeds=2, steps=7)
    ga, noise, full = (plan.config(each, 1) for each in plan.entries)
    assert {ga.training.steps, noise.training.steps, full.training.steps} == {7}
    assert {ga.seed, noise.seed, full.seed} == {1} and {each.validation.patience for each in (ga, noise, full)} == {NO_EARLY_STOP}
    assert (
        ga.training.learning_rate == 1e-4 and ga.adapter == noise.adapter == resolve("demo", method="npo").adapter and full.adapter is None
    )
    assert noise.method.name == "vgid" and noise.method.instruction is None


def test_what_fits_a_method_comes_before_what_fits_the_target() -> None:
    target = replace(TARGETS.get("smol"), overrides=("training.steps=80", "training.learning_rate=1e-3", "training.precision=bf16"))
    smol = replace(make_plan("smol", ["npo", "ga"], seeds=1), target=target)
    npo, ga = (smol.config(each, 0) for each in smol.entries)
    assert (npo.training.learning_rate, ga.training.learning_rate) == (1e-3, LEARNING_RATES["ga"])
    assert npo.training.steps == ga.training.steps == 80 and npo.training.precision == "bf16"


def test_settings_that_were_found_come_last() -> None:
    plan = make_plan("tiny", ["vgid"], seeds=1)
    config = plan.config(plan.entries[0], 0, {"training.learning_rate": 1e-05, "method.answers": ("teacher",)})
    assert config.training.learning_rate == 1e-5 and list(config.method.answers) == ["teacher"]


def earlier(folder: Path, **changes: Any) -> Path:
    found = {"settings": {"training.learning_rate": 3e-4}, "composite": 0.9, "trials": 5}
    file = folder / "comparison.json"
    file.write_text(json.dumps({"tuned_on": 2, "tuned": {"ga": found, "npo": found}, **changes}))
    return file


def test_settings_of_an_earlier_comparison_serve_other_seeds(tmp_path: Path) -> None:
    plan = make_plan("tiny", ["ga", "idk"], seeds=2, first_seed=7, settings=earlier(tmp_path))
    assert plan.seeds == (7, 8) and plan.trials == 0 and plan.earlier and (plan.earlier.seed, plan.earlier.trials) == (2, 5)
    assert plan.found == {"ga": Tuned({"training.learning_rate": 3e-4}, 0.9, 5)}
    assert not make_plan("tiny", ["ga"], seeds=1).found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tuned": {}}, "holds no settings that were tuned"),
        ({"tuned": [1]}, "holds no settings that were tuned"),
        ({"tuned": {"ga": {"settings": {"method.betta": 1}, "composite": 0.9, "trials": 5}}}, "betta"),
    ],
)
def test_settings_that_cannot_be_used_are_errors_at_once(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan("tiny", ["ga"], seeds=1, settings=earlier(tmp_path, **changes))
    with pytest.raises(ConfigError, match="--tune and --settings"):
        make_plan("tiny", ["ga"], seeds=1, trials=1, settings=earlier(tmp_path))
    with pytest.raises(ConfigError, match="no such file"):
        make_plan("tiny", ["ga"], seeds=1, settings=tmp_path / "none.json")


def test_a_variant_keeps_what_its_recipe_settles() -> None:
    vgid, policy, noise, paper = parse_entries(["vgid", "vgid:on-policy", "vgid:noise-only", "vgid:paper"])
    assert "method.answers" in vgid.search() and "method.answers" not in policy.search() and "method.answers" in noise.search()
    assert list(paper.search()) == ["training.learning_rate"]


@pytest.mark.parametrize("name", variants())
def test_a_variant_is_its_recipe_trained_as_all_others(name: str) -> None:
    plan = make_plan("tiny", [f"vgid:{name}", "vgid"], seeds=1, steps=7)
    vgid, variant = (plan.config(each, 1) for each in plan.entries)
    # The demo's recipe leaves replay out, for the variants too.
    assert variant.method == load_config(name).method.model_copy(update={"replay": None}) != vgid.method
    assert variant.model_dump(exclude={"method"}) == vgid.model_dump(exclude={"method"})


def test_vgid_goes_first_since_its_time_is_the_time_budget() -> None:
    assert [each.name for each in make_plan("tiny", ["ga", "vgid"], seeds=1, budget="equal-time").entries] == ["vgid", "ga"]


@pytest.mark.parametrize(
    ("methods", "budget", "message"),
    [
        (["ngo"], "equal-steps", "did you mean 'npo'?"),
        (["vgid:noise-onli"], "equal-steps", "did you mean 'vgid:noise-only'?"),
        (["ga:noise-only"], "equal-steps", "unknown variant"),
        (["ga", "ga"], "equal-steps", "a method is named twice"),
        (["ga", "npo"], "equal-time", "the time of vgid is the time budget of all methods"),
    ],
)
def test_mistakes_are_errors_at_once(methods: list[str], budget: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_plan("tiny", methods, seeds=1, budget=budget)  # type: ignore[arg-type]
    assert message in str(error.value)


def test_steps_that_fit_into_a_time() -> None:
    """Started at 10; the first step ended at 14, the others 1 s apart, but for one of 3 s: a step is 1 s, preparation 3 s."""
    ends = [14.0, 15.0, 16.0, 19.0, 20.0]
    assert count_steps(23.5, 10.0, ends) == 20 and count_steps(2.0, 10.0, ends) == 1
