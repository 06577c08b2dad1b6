"""`vgid experiment reverse`: can instructions in the prompt be talked away, and forgetting in the weights not?

The central claim of arXiv 2606.00105. In-context unlearning (`icu`) leaves the weights alone, and asks every question behind an
instruction, with noise on the pictures, or with both. It is attacked in the same ways as the model unlearned by VGID, the model before
unlearning and the retrained model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from vgid.artifacts import write_json_atomic, write_text_atomic
from vgid.attacks import ATTACKS
from vgid.attacks.asking import ask_with_decoys
from vgid.attacks.base import Material, Outcome, Outcomes, plain_copy, sample_alike, sample_rows
from vgid.auditing.audit import PROFILE_ROWS
from vgid.auditing.figures import recovered_share
from vgid.config import resolve
from vgid.data.example import subject_key
from vgid.data.sources import check_disjoint, rows_of
from vgid.errors import DataError
from vgid.evaluation.statistics import GroupedValues, bootstrap_ci, combined_ci
from vgid.experiments.inputs import SeedModels, check_seeds, with_new_demos
from vgid.models.loading import LoadedModel, load_model
from vgid.perturbation import NoiseKind
from vgid.progress import Stages, stages_or_own
from vgid.report.experiment import experiment_latex, experiment_markdown, render_experiment
from vgid.results import versions
from vgid.run_folder import check_output, output_folder
from vgid.training.fit import fit

SCHEMA = "vgid.experiment.reverse/1"
ATTACKED: Mapping[str, Mapping[str, Any]] = {"reverse": {}, "prefill": {}, "in_context": {}}
"""Attacks of the experiment, with their settings."""
WAYS = {"prefill": {"": "prefix forcing"}, "in_context": {"neighbours": "few-shot recovery"}}
"""Names of levels in the results; other levels of these attacks are left out."""
LEAST_RECOVERED, MOST_ABOVE = 0.5, 0.05
"""What the claim means here: instructions alone give back at least half of the facts; VGID gives at most this much more than the retrained
model, as a share of the facts."""
UNSEEN = "retrained"


def reverse(
    runs: Sequence[SeedModels] = (),
    *,
    seeds: int = 0,
    first_seed: int = 0,
    instruction: str = "forget",
    noise: NoiseKind = "uniform",
    max_rows: int = PROFILE_ROWS["quick"][0],
    batch_size: int = 64,
    out: str | Path = "runs/reverse",
    overwrite: bool = False,
    stages: Stages | None = None,
) -> dict[str, Any]:
    """Attack in-context unlearning, VGID and the retrained model with prompts that reverse the instruction.

    Args:
        runs: models and rows, one entry for each seed.
        seeds: number of demos to run beside them.
        first_seed: the first of their seeds; the others follow, without those of `runs`.
        instruction: name of the built-in instruction of in-context unlearning, or a text; the attack quotes it.
        noise: kind of noise on the pictures of in-context unlearning.
        max_rows: largest number of forget rows of each seed; half as many retain rows are asked.
        batch_size: number of questions that are asked at once.
        out: folder for `experiment.json`, `.html`, `.md` and `.tex`; new demos go into `demos` in it.
        overwrite: replace what an earlier run left in `out`.
        stages: shows and times what is done; None shows progress bars.

    Returns:
        The results object (schema `vgid.experiment.reverse/1`): figures and settings, nothing of what was asked or answered.

    Raises:
        ConfigError: instruction or noise is not valid, a seed is given twice, or there is nothing to attack.
        DataError: rows are bad, or no base answers any of the forget rows.
        ModelError: a model cannot be loaded.
        OutputError: `out` holds something already, or cannot be written.
    """
    folder = Path(out)
    check_seeds(runs, seeds)
    configs = {
        "icu: instruction": ["method.noise.kind=none"],
        "icu: noise": [f"method.noise.kind={noise}", 'method.instruction=""'],
        "icu: both": [f"method.noise.kind={noise}"],
    }
    told = [f"method.instruction={instruction}"]
    resolved = {name: resolve(None, [*told, *changes], method="icu") for name, changes in configs.items()}
    check_output(folder, overwrite, inputs=[path for run in runs for path in run.paths])
    with stages_or_own(stages) as shown, output_folder(folder):
        made = with_new_demos(runs, seeds, first_seed, folder, shown)
        entries: dict[str, list[dict[str, Any]]] = {}
        for run in made:
            with shown(f"Reversing instructions, seed {run.seed}", f"reverse-{run.seed}") as tick:
                material = _material(run, max_rows, batch_size)
                names = ["base", *resolved, "vgid", UNSEEN]
                for number, name in enumerate(names, 1):
                    path = {"vgid": run.unlearned, UNSEEN: run.retrained}.get(name, run.base)
                    loaded = load_model(path)
                    if name in resolved:
                        loaded = fit(loaded, [], [], resolved[name].model_copy(update={"seed": run.seed})).loaded
                    entries.setdefault(name, []).append(_scores(loaded, material, instruction))
                    tick(number, len(names))
                for found in entries.values():
                    found[-1]["rows"] = (material, run.seed)
        results = {
            **summarise(entries),
            "seeds": [run.seed for run in made],
            "instruction": instruction,
            "noise": noise,
            "budget": {name: attack.config.model_dump(mode="json") for name, attack in _attacks(instruction).items()},
            "versions": versions(),
            "seconds": dict(shown.seconds),
        }
        write_json_atomic(folder / "experiment.json", results)
        write_text_atomic(folder / "experiment.md", experiment_markdown(results))
        write_text_atomic(folder / "experiment.tex", experiment_latex(results))
        write_text_atomic(folder / "experiment.html", render_experiment(results))
    return results


def _material(run: SeedModels, most: int, batch_size: int) -> Material:
    forget, retain = rows_of(run.forget), rows_of(run.retain)
    check_disjoint(forget, retain)
    return Material(
        forget=sample_rows(forget, most, run.seed),
        retain=sample_alike(retain, forget, max(1, most // 2), run.seed),
        seed=run.seed,
        batch_size=batch_size,
        pool=[*forget, *retain],
    )


def _attacks(instruction: str) -> dict[str, Any]:
    """The attacks of the experiment by name."""
    made = {}
    for name, settings in ATTACKED.items():
        kind = ATTACKS.get(name)
        made[name] = kind(kind.Config(**settings, **({"instruction": instruction} if name == "reverse" else {})))
    return made


def _scores(loaded: LoadedModel, material: Material, instruction: str) -> dict[str, Any]:
    """By way of asking, the scores of forget and retain rows by row id.

    `any` takes the best of all prompts. `weights alone` is the plain question to the model without a wrapper, as whoever has the weights
    asks it; where there is no wrapper, both are one.
    """

    def plainly(model: LoadedModel) -> Outcome:
        return ask_with_decoys(model, material.everything, lambda row: [row], {}, material.batch_size).outcome(material)

    clean = plainly(loaded)
    found: Outcomes = {"plain question": clean}
    for name, attack in _attacks(instruction).items():
        for level, outcome in attack.run(loaded, material).items():
            way = WAYS.get(name, {level: level}).get(level)
            found |= {way: outcome} if way is not None else {}
    best = {
        side: {row.id: max(getattr(each, side).get(row.id, 0.0) for each in found.values()) for row in getattr(material, rows)}
        for side, rows in (("forget", "forget"), ("control", "retain"))
    }
    scores = {way: {"forget": dict(each.forget), "control": dict(each.control)} for way, each in found.items()}
    taken = clean if loaded.asks is None else plainly(plain_copy(loaded))
    return {"ways": {**scores, "any": best, "weights alone": {"forget": dict(taken.forget), "control": dict(taken.control)}}}


def summarise(entries: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Turn the scores of all models into figures.

    Args:
        entries: by model, what `_scores` gives for each seed, with `rows`: the material and the seed.

    Returns:
        The part of the results object that depends on scores alone.

    Raises:
        DataError: no base answers any of the forget rows.
    """
    known, kept = [], []  # (place of the seed, row): what the base answers to the plain question
    for place, each in enumerate(entries["base"]):
        clean, (material, _) = each["ways"]["plain question"], each["rows"]
        known += [(place, row) for row in material.forget if clean["forget"][row.id]]
        kept += [(place, row) for row in material.retain if clean["control"].get(row.id)]
    if not known:
        raise DataError(
            "the base answers none of the forget rows", expected="a base that knows them", got="none", fix="check base and rows"
        )
    seed = entries["base"][0]["rows"][1]

    def scored(name: str, place: int, way: str, side: str) -> Mapping[str, float]:
        found: Mapping[str, float] = entries[name][place]["ways"].get(way, {}).get(side, {})
        return found

    figures: dict[str, Any] = {}
    for name in entries:
        ways = {}
        for way in dict.fromkeys(way for each in entries[name] for way in each["ways"]):
            # A way may leave out other rows for another model: only rows that both were asked are compared.
            both = [(place, row) for place, row in known if all(row.id in scored(each, place, way, "forget") for each in (name, UNSEEN))]
            if not both:
                continue
            ours, theirs = ([scored(each, place, way, "forget")[row.id] for place, row in both] for each in (name, UNSEEN))
            people = [f"{place}/{subject_key(row)}" for place, row in both]
            control = [found[row.id] for place, row in kept if row.id in (found := scored(name, place, way, "control"))]
            share = recovered_share(ours, theirs, 0.0, people, seed=seed)
            parts = [GroupedValues(ours, people, "forget"), GroupedValues(theirs, people, "forget")]
            above, interval = combined_ci(parts, lambda means: means[0] - means[1], seed=seed)
            ways[way] = {
                "facts": len(ours),
                "rate": fmean(ours),
                "rate_interval": list(bootstrap_ci(ours, people, seed=seed)),
                "share": share.value if share else None,
                "interval": list(share.interval) if share else None,
                "above_retrained": above,
                "above_interval": list(interval),
                "control": fmean(control) if control else None,
            }
        figures[name] = ways
    instructed = {name: ways["any"] for name, ways in figures.items() if name.startswith("icu")}
    return {
        "schema": SCHEMA,
        "known": len(known),
        "people": len({f"{place}/{subject_key(row)}" for place, row in known}),
        "entries": figures,
        "claim": {
            "least_recovered": LEAST_RECOVERED,
            "most_above_retrained": MOST_ABOVE,
            "icu": {name: each["share"] is not None and each["share"] >= LEAST_RECOVERED for name, each in instructed.items()},
            "vgid": max(each["above_retrained"] for each in figures["vgid"].values()) <= MOST_ABOVE,
        },
    }
