"""`vgid experiment ablate`: what each part of VGID contributes, one setting changed at a time.

The ablations of arXiv 2606.00105 (noise kinds and strength, instruction, the weights alpha and beta, steps) on models that have memorised
people, by VGID's default or by the paper's own loss. Any other setting can be swept too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from vgid.artifacts import write_json_atomic, write_text_atomic
from vgid.attacks import ATTACKS
from vgid.attacks.base import Material, sample_rows
from vgid.config import RunConfig, read_recipe, resolve
from vgid.curves import thinned
from vgid.data.example import Example, subject_key
from vgid.data.sources import check_disjoint, rows_of
from vgid.errors import ConfigError
from vgid.evaluation.evaluate import evaluate
from vgid.evaluation.statistics import bootstrap_ci
from vgid.experiments.inputs import SeedModels, check_seeds, with_new_demos
from vgid.experiments.kept import READINGS, Kept, anything_kept, code_digest, model_digests
from vgid.instructions import INSTRUCTIONS
from vgid.models.loading import LoadedModel, load_model
from vgid.progress import Stages, stages_or_own
from vgid.report.ablation import ablation_latex, ablation_markdown, render_ablation
from vgid.results import versions
from vgid.run_folder import check_output, output_folder
from vgid.training.fingerprint import rows_digest
from vgid.training.fit import fit

SCHEMA = "vgid.experiment.ablate/1"
DEFAULT = "default"
"""Name of the run in which nothing is changed."""
REFERENCES = {"before unlearning": "base", "retrained": "retrained"}
"""Models that are measured for comparison, each with its field of `SeedModels`."""
SIDES = {
    "forget": ("forget", "forget_views", "forget_reworded", "forget_text"),
    "retain": ("retain", "retain_views", "retain_reworded", "retain_text"),
}
"""Splits of a demo that are asked, by side."""
CODE = (
    "attacks",
    "data",
    "evaluation",
    "methods",
    "models",
    "training",
    "config.py",
    "instructions.py",
    "losses.py",
    "perturbation.py",
    "settings.py",
)
"""Code that decides what is measured."""
NO_EARLY_STOP = 1_000_000
"""Patience, in evaluations during training: more than any run has, so that all take the same steps."""


CURVE_POINTS = 60
"""Points of each training curve that are kept."""


class Change(NamedTuple):
    """One value of a sweep.

    Attributes:
        label: the value, as tables show it.
        overrides: changes to the settings, as `a.b=c`.
    """

    label: str
    overrides: tuple[str, ...]


def _values(key: str, values: Sequence[object], *further: str) -> tuple[Change, ...]:
    return tuple(Change(str(value), (f"{key}={value}", *further)) for value in values)


SWEEPS: Mapping[str, tuple[Change, ...]] = {
    "noise": _values("method.noise.kind", ("uniform", "gaussian", "blur", "shuffle", "mean", "diffusion", "none")),
    "strength": _values("method.noise.strength", (0.25, 0.5, 0.75, 1.0), "method.noise.kind=gaussian"),
    "instruction": (Change("none", ("method.instruction=null",)), *_values("method.instruction", tuple(INSTRUCTIONS))),
    "alpha": _values("method.alpha", (0.5, 1, 2, 4)),
    "beta": _values("method.beta", (2, 4, 8, 16)),
    "steps": _values("training.steps", (50, 100, 200, 300)),
}
"""The paper's ablations; others are written as `KEY=VALUE,VALUE`."""


def find_sweeps(names: Sequence[str]) -> dict[str, tuple[Change, ...]]:
    """Look up sweeps.

    Args:
        names: names in `SWEEPS`, or settings with their values (`training.learning_rate=1e-3,2e-3`); none for all in `SWEEPS`.

    Returns:
        The values of each sweep, in the order given.

    Raises:
        ConfigError: there is no such sweep, or one is given twice.
    """
    found: dict[str, tuple[Change, ...]] = {}
    for name in names or SWEEPS:
        key, given, values = name.partition("=")
        listed = [value.strip() for value in values.split(",") if value.strip()]
        if (not given and key not in SWEEPS) or (given and not (key and listed)):
            raise ConfigError("there is no such sweep", expected=f"{', '.join(SWEEPS)}, or KEY=VALUE,VALUE", got=repr(name))
        short = key.rpartition(".")[2] if given else key
        if short in found:
            raise ConfigError("a sweep is given twice", expected="each name once", got=repr(name), fix="leave one out")
        found[short] = _values(key, listed) if given else SWEEPS[key]
    return found


def ablate(
    runs: Sequence[SeedModels] = (),
    *,
    sweeps: Sequence[str] = (),
    recipe: str | None = "demo",
    variant: str | None = None,
    overrides: Sequence[str] = (),
    seeds: int = 0,
    first_seed: int = 0,
    max_rows: int = 192,
    batch_size: int = 64,
    out: str | Path = "runs/ablate",
    overwrite: bool = False,
    stages: Stages | None = None,
) -> dict[str, Any]:
    """Unlearn by VGID with one setting changed at a time, and measure what is forgotten and what is kept.

    A run that was stopped goes on: what was measured of a model is kept in `readings`, and used again as long as models, rows, settings
    and code are the same.

    Args:
        runs: models and rows, one entry for each seed.
        sweeps: which settings to change, as `find_sweeps` takes them.
        recipe: recipe of the runs.
        variant: recipe of a variant of VGID whose method settings replace those of `recipe`, such as `paper`.
        overrides: changes that all runs have, as `a.b=c`.
        seeds: number of demos to run beside `runs`.
        first_seed: the first of their seeds; the others follow, without those of `runs`.
        max_rows: largest number of questions about each side, forgotten and retained people.
        batch_size: number of questions that are asked at once.
        out: folder for `experiment.json`, `.html`, `.md` and `.tex`; new demos go into `demos` in it.
        overwrite: replace what an earlier run left in `out`.
        stages: shows and times what is done; None shows progress bars.

    Returns:
        The results object (schema `vgid.experiment.ablate/1`): figures and settings, nothing of what was asked or answered.

    Raises:
        ConfigError: a sweep, recipe or setting does not exist or is not valid, or there are no models.
        DataError: rows are bad.
        ModelError: a model cannot be loaded.
        OutputError: `out` holds something else, or cannot be written.
    """
    folder, wanted = Path(out), find_sweeps(sweeps)
    check_seeds(runs, seeds)
    settings = [*_variant(variant), *overrides, f"validation.patience={NO_EARLY_STOP}"]
    plans = {DEFAULT: resolve(recipe, settings, method="vgid")}
    for name, changes in wanted.items():
        plans |= {f"{name} {each.label}": resolve(recipe, [*settings, *each.overrides], method="vgid") for each in changes}
    check_output(folder, overwrite, resume=True, inputs=[path for run in runs for path in run.paths])
    for run in runs:
        check_disjoint(rows_of(run.forget), rows_of(run.retain))
    values: dict[str, list[Mapping[str, Any]]] = {name: [] for name in (*REFERENCES, *plans)}
    with stages_or_own(stages) as shown, output_folder(folder, keep=not overwrite, goes_on=lambda: anything_kept(folder)):
        made = with_new_demos(runs, seeds, first_seed, folder, shown)
        for run in made:
            rows = {side: _questions(run, side, max_rows) for side in SIDES}
            forget, retain = rows_of(run.forget), rows_of(run.retain)
            check_disjoint(forget, retain)
            common = {
                "rows": rows_digest([*rows["forget"], *rows["retain"], *forget, *retain]),
                "models": model_digests([run.base, run.retrained]),
                "code": code_digest(*CODE),
                "versions": versions(),
            }
            with shown(f"Unlearning {len(plans)} times, seed {run.seed}", f"ablate-{run.seed}") as tick:
                for done, name in enumerate(values, 1):
                    plan = plans.get(name)
                    config = plan.model_copy(update={"seed": run.seed}) if plan else None
                    identity = {**common, "settings": config.model_dump(mode="json") if config else REFERENCES[name]}
                    kept = Kept(folder / READINGS / f"seed-{run.seed}" / f"{_file(name)}.json", identity)
                    if "values" not in kept.values:
                        loaded, seconds, curves = _made(run, name, config, forget, retain)
                        kept.add("values", {**_measured(loaded, rows, run.seed, batch_size), "seconds": seconds, "curves": curves})
                    values[name].append(kept.values["values"])
                    tick(done, len(values))
        people = [{side: [subject_key(row) for row in _questions(run, side, max_rows)] for side in SIDES} for run in made]
        results = {
            "schema": SCHEMA,
            **summarise(values, people, {name: [each.label for each in changes] for name, changes in wanted.items()}),
            "curves": {name: [each["curves"] for each in values[name]] for name in plans},
            "seeds": [run.seed for run in made],
            "recipe": recipe,
            "variant": variant,
            "config": plans[DEFAULT].model_dump(mode="json"),
            "versions": versions(),
            "seconds": dict(shown.seconds),
        }
        write_json_atomic(folder / "experiment.json", results)
        write_text_atomic(folder / "experiment.md", ablation_markdown(results))
        write_text_atomic(folder / "experiment.tex", ablation_latex(results))
        write_text_atomic(folder / "experiment.html", render_ablation(results))
    return results


def _variant(name: str | None) -> list[str]:
    """The method settings of a variant's recipe, as overrides."""
    if name is None:
        return []
    recipe = read_recipe(name)
    if recipe.variant_of != "vgid" or recipe.values["method"].get("name") != "vgid":
        raise ConfigError("the recipe is not a variant of VGID", expected="a recipe with variant_of: vgid, such as paper", got=repr(name))
    return [f"method.{key}={json.dumps(value)}" for key, value in recipe.values["method"].items() if key != "name"]


def _file(name: str) -> str:
    return "".join(sign if sign.isalnum() or sign in ".-" else "-" for sign in name)


def _questions(run: SeedModels, side: str, most: int) -> list[Example]:
    """The questions about one side: of each split as many; forget or retain rows where there are no splits."""
    files = [run.splits[name] for name in SIDES[side] if name in run.splits] or [run.forget if side == "forget" else run.retain]
    return [row for file in files for row in sample_rows(rows_of(file), max(1, most // len(files)), run.seed)]


def _made(
    run: SeedModels, name: str, config: RunConfig | None, forget: Sequence[Example], retain: Sequence[Example]
) -> tuple[LoadedModel, float, dict[str, Any]]:
    """A model to measure, with the seconds and the curves of its training."""
    if config is None:
        return load_model(getattr(run, REFERENCES[name])), 0.0, {}
    fitted = fit(load_model(run.base), list(forget), list(retain), config)
    return fitted.loaded, fitted.seconds, thinned(fitted.curves, CURVE_POINTS)


def _measured(loaded: LoadedModel, rows: Mapping[str, Sequence[Example]], seed: int, batch_size: int) -> dict[str, Any]:
    """Row by row: whether the fact is stated, and ROUGE-L, on both sides; and whether a begun answer brings the fact."""
    found: dict[str, Any] = {}
    for side, result in evaluate(loaded, rows, batch_size=batch_size, seed=seed).items():
        found[side] = [item.accuracy for item in result.items]
        found[f"{side}_rouge_l"] = [item.rouge_l for item in result.items]
    material = Material(list(rows["forget"]), [], seed, batch_size=batch_size)
    attack = ATTACKS.get("prefill")
    outcome = attack(attack.Config()).run(loaded, material)[""]
    found["prefill"] = [outcome.forget[row.id] for row in rows["forget"]]
    return found


def summarise(
    values: Mapping[str, Sequence[Mapping[str, Any]]], people: Sequence[Mapping[str, Sequence[str]]], sweeps: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Turn what was measured into figures.

    Args:
        values: by model, for each seed, what `_measured` gives, with `seconds`.
        people: for each seed and side, the person of each question.
        sweeps: labels of the values of each sweep.

    Returns:
        The part of the results object that depends on values alone: by model, means with 95 % intervals over the people of all seeds.
    """
    figures: dict[str, Any] = {}
    for name, seeds in values.items():
        shown: dict[str, Any] = {"seconds": fmean(each["seconds"] for each in seeds)}
        for key in ("forget", "forget_rouge_l", "prefill", "retain", "retain_rouge_l"):
            side = "retain" if key.startswith("retain") else "forget"
            numbers = [value for each in seeds for value in each[key]]
            groups = [f"{place}/{person}" for place, each in enumerate(people) for person in each[side]]
            shown[key] = {"value": fmean(numbers), "interval": list(bootstrap_ci(numbers, groups, seed=0))}
        figures[name] = shown
    counts = {side: sum(len(each[side]) for each in people) for side in SIDES}
    met = {side: sum(len(set(each[side])) for each in people) for side in SIDES}
    return {"questions": counts, "people": met, "sweeps": {name: list(labels) for name, labels in sweeps.items()}, "models": figures}
