"""`vgid experiment sequence`: requests in a row, one person each, every one starting from the result of the one before.

Asked after each: the request's own facts, those of all earlier requests (do they come back?), those of people who ask later and those of
people who stay (what do the requests cost in all?). ICU-Bench (arXiv 2605.05938) does this with 100 requests; its data and the exact
definitions of its scores were not available, so these are our own.

Earlier requests' rows join the forget set, half as many as the new ones, and all others are retained, as in `vgid forget --after`.
Without models and rows of the user's, the embedded base is taken, which knows 64 people; other rows are asked than are trained on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from vgid.artifacts import write_json_atomic, write_text_atomic
from vgid.attacks.base import sample_rows
from vgid.config import RunConfig, resolve
from vgid.data.example import Example, subject_key
from vgid.data.sources import check_disjoint, rows_of
from vgid.errors import ConfigError
from vgid.evaluation.evaluate import evaluate
from vgid.experiments.kept import READINGS, Kept, anything_kept, code_digest, model_digests
from vgid.models.export import save_checkpoint
from vgid.models.loading import load_model
from vgid.progress import Stages, stages_or_own
from vgid.report.sequence import sequence_markdown
from vgid.results import versions
from vgid.run_folder import check_output, discard, output_folder
from vgid.synthetic.people import Camera, World
from vgid.synthetic.splits import training_rows
from vgid.synthetic.tiny import tiny_path
from vgid.training.fingerprint import rows_digest
from vgid.training.fit import fit

SCHEMA = "vgid.experiment.sequence/1"
SETS = ("own", "earlier", "later", "stay")
"""Facts that are asked: those of the request, of earlier and later ones, and of people who stay."""
EARLIER = 0.5
"""Rows of earlier requests in a forget set, per new row, at most; as in `vgid forget --after`."""
TRAINED, ASKED = 24, 8
"""Rows about each person of the embedded base that are trained on, and others that are asked."""
CODE = ("data", "evaluation", "methods", "models", "training", "experiments/sequence.py", "config.py", "settings.py")
log = logging.getLogger("vgid")


@dataclass(frozen=True)
class Requests:
    """A model and the people that it knows.

    Attributes:
        model: folder of the model before all requests.
        trained: rows to train on, by person: to forget, or to keep.
        asked: rows to ask, by person; they may be the same.
        requests: people in the order of their requests; the others stay.
    """

    model: Path
    trained: Mapping[str, Sequence[Example]]
    asked: Mapping[str, Sequence[Example]]
    requests: tuple[str, ...]


def embedded(requests: int, seed: int) -> Requests:
    """Take the embedded base and its people.

    Raises:
        ConfigError: the requests leave nobody to keep, or the packages of the extra `demo` are not installed.
    """
    people = World(seed, 2, 1).base_training_people
    if not 0 < requests < len(people):
        raise ConfigError("somebody must stay", where="--requests", expected=f"1 to {len(people) - 1} requests", got=str(requests))
    rows: dict[str, list[Example]] = {}
    for person in people:
        rows[person.id] = list(training_rows(Camera(), [person], seed))
        Random(f"sequence/{seed}/{person.id}").shuffle(rows[person.id])
    order = sorted(rows)
    Random(f"sequence/{seed}").shuffle(order)
    trained = {person: each[:TRAINED] for person, each in rows.items()}
    asked = {person: each[TRAINED : TRAINED + ASKED] for person, each in rows.items()}
    return Requests(tiny_path(), trained, asked, tuple(order[:requests]))


def of_files(model: Path, forget: Path, retain: Path, requests: int | None) -> Requests:
    """Take a model and rows of the user's: each subject of the forget rows is a request, in the order of the names.

    Raises:
        ConfigError: there are fewer subjects than requests.
        DataError: rows are bad, or one is in both sets.
    """
    gone, kept = rows_of(forget, name="forget"), rows_of(retain, name="retain")
    check_disjoint(gone, kept)
    rows: dict[str, list[Example]] = {}
    for row in (*gone, *kept):
        rows.setdefault(subject_key(row), []).append(row)
    order = sorted({subject_key(row) for row in gone})
    if requests is not None and not 0 < requests <= len(order):
        raise ConfigError("there are fewer people to forget", where="--requests", expected=f"1 to {len(order)}", got=str(requests))
    return Requests(model, rows, rows, tuple(order[:requests]))


def sequence(
    given: Requests,
    *,
    recipe: str | None = "demo",
    overrides: Sequence[str] = (),
    retain_rows: int = 400,
    max_rows: int = 96,
    seed: int = 0,
    out: str | Path = "runs/sequence",
    overwrite: bool = False,
    stages: Stages | None = None,
) -> dict[str, Any]:
    """Honour one request after the other, and ask about everybody after each.

    A run that was stopped goes on after the last request that was honoured and asked about.

    Args:
        given: the model and its people.
        recipe: recipe of every request.
        overrides: changes to its settings, as `a.b=c`.
        retain_rows: rows of others that a request trains on, at most, drawn anew for each.
        max_rows: rows of each of `SETS` to ask, at most.
        seed: random seed.
        out: folder for `experiment.json` and `experiment.md`, and the model after the last request.
        overwrite: replace what an earlier run left in `out`.
        stages: shows and times what is done; None shows progress bars.

    Returns:
        The results object (schema `vgid.experiment.sequence/1`): for each request, accuracy by set, in [0, 1]; nothing of rows.

    Raises:
        ConfigError: recipe or settings are not valid.
        DataError: rows are bad.
        ModelError: a model cannot be loaded.
        OutputError: `out` holds something else, or cannot be written.
    """
    folder, config = Path(out), resolve(recipe, list(overrides), method="vgid").model_copy(update={"seed": seed})
    check_output(folder, overwrite, resume=True, inputs=[given.model])
    everything = [row for person in sorted(given.trained) for row in (*given.trained[person], *given.asked[person])]
    identity = {
        "rows": rows_digest(everything),
        "model": model_digests([given.model]),
        "order": rows_digest([row for person in given.requests for row in given.trained[person]]),
        "settings": config.model_dump(mode="json"),
        "retain_rows": retain_rows,
        "max_rows": max_rows,
        "code": code_digest(*CODE),
        "versions": versions(),
    }
    with stages_or_own(stages) as shown, output_folder(folder, keep=not overwrite, goes_on=lambda: anything_kept(folder)):
        steps: list[dict[str, Any]] = []
        with shown(f"{len(given.requests)} requests in a row", "sequence") as tick:
            for number in range(len(given.requests) + 1):
                kept = Kept(folder / READINGS / f"{number:04d}.json", identity)
                after = folder / "models" / f"{number:04d}"
                if "values" not in kept.values:
                    values = _honour(given, number, config, after, retain_rows) if number else {}
                    kept.add("values", {**values, **_measured(given, number, after if number else given.model, max_rows, seed)})
                steps.append({"request": number, **kept.values["values"]})
                if number > 1:
                    discard(folder / "models" / f"{number - 1:04d}")
                tick(number, len(given.requests))
        results = {
            "schema": SCHEMA,
            **summarise(steps),
            "steps": steps,
            "people": {"requests": len(given.requests), "stay": len(given.trained) - len(given.requests)},
            "held_out": given.asked is not given.trained,
            "recipe": recipe,
            "config": config.model_dump(mode="json"),
            "seed": seed,
            "versions": versions(),
            "seconds": dict(shown.seconds),
        }
        write_json_atomic(folder / "experiment.json", results)
        write_text_atomic(folder / "experiment.md", sequence_markdown(results))
    return results


def _honour(given: Requests, number: int, config: RunConfig, out: Path, retain_rows: int) -> dict[str, Any]:
    """Unlearn the person of a request, counted from 1, and write the model after it."""
    person, earlier = given.requests[number - 1], given.requests[: number - 1]
    before = out.with_name(f"{number - 1:04d}") if number > 1 else given.model
    new, gone = list(given.trained[person]), [row for each in earlier for row in given.trained[each]]
    others = [row for each in sorted(given.trained) if each not in (person, *earlier) for row in given.trained[each]]
    again = sample_rows(gone, int(EARLIER * len(new)), number)
    fitted = fit(load_model(before), [*new, *again], sample_rows(others, retain_rows, number), config)
    discard(out)
    save_checkpoint(fitted.loaded.model, fitted.loaded.processor, out)
    return {"seconds": fitted.seconds, "stopped": fitted.stopped}


def _measured(given: Requests, number: int, model: Path, max_rows: int, seed: int) -> dict[str, float | None]:
    """Accuracy by set after a request; None where nobody is in it."""
    done, later = given.requests[:number], given.requests[number:]
    people = {"own": done[-1:], "earlier": done[:-1], "later": later, "stay": sorted({*given.asked} - {*given.requests})}
    rows = {name: sample_rows([row for each in people[name] for row in given.asked[each]], max_rows, seed) for name in SETS}
    found = evaluate(load_model(model), {name: each for name, each in rows.items() if each}, seed=seed)
    return {name: found[name].accuracy if name in found else None for name in SETS}


def summarise(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Say what the requests achieved and cost in all.

    Args:
        steps: accuracies by set before all requests, and after each.

    Returns:
        `own` and `earlier`: mean over requests, and the worst; `drop`: what the people who stay lost from the first to the last step;
        `largest_drop`: the largest loss after any request.
    """
    first, asked = steps[0], steps[1:]
    found: dict[str, Any] = {}
    for name in ("own", "earlier"):
        values = [step[name] for step in asked if step[name] is not None]
        found[name] = {"mean": fmean(values), "worst": max(values)} if values else None
    stay = [step["stay"] for step in asked if step["stay"] is not None]
    known = first["stay"] if stay else None
    found["drop"] = None if known is None or not stay else known - stay[-1]
    found["largest_drop"] = None if known is None or not stay else known - min(stay)
    return {"summary": found}
