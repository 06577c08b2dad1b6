"""One person's request with few rows and thin retain data: `python perf/one_person.py runs/demo --case few --case none --json found.json`.

`runs/demo` is what `vgid demo --keep-data` leaves. Of its people one is forgotten as `vgid forget` does it, with rows in other forms and
the defaults (`--no-enrich` and `--recipe demo` for less), and everybody else must stay. `--references` asks the base first.
Asked before and after, and of the retrained model: her facts by other pictures, in other wordings and by name; the rest of a fact by name
whose sentence is begun; what fine-tuning on half of her facts brings back of the other half; everybody else's facts; what pictures show.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from sources import RUNS, write_result

from vgid.attacks.base import Material
from vgid.attacks.prefill import Prefill, PrefillConfig
from vgid.config import RunConfig, resolve
from vgid.data.example import STRANGER, Example
from vgid.demo.data import read_data
from vgid.enrichment import Enriched, enrich
from vgid.evaluation.evaluate import evaluate
from vgid.models.loading import LoadedModel, load_model
from vgid.progress import Stages, without_info_messages
from vgid.settings import DEFAULT_METHOD
from vgid.training.fit import fit
from vgid.unlearning import train_and_export, with_neutral

NEUTRAL, FEW = 256, 50
"""Neutral rows where there is no retain set, and rows of a small one."""
FORGOTTEN = ("forget", "forget_views", "forget_reworded", "forget_text")
KEPT = ("retain", "retain_views", "retain_reworded", "retain_text")
LEARNING = {"lora 1e-3": 1e-3, "lora 3e-4": 3e-4, "all weights 2e-4": 2e-4}
Rows = list[Example]
SOURCES = (*RUNS, "src/vgid/data/replay.py", "src/vgid/models/inversion.py", "src/vgid/enrichment")
"""What the figures depend on."""


class People:
    """The rows of a kept demo, as one person's request meets them."""

    def __init__(self, folder: Path, person: str, seed: int, asked: int) -> None:
        data = read_data(folder / "data")
        self.person, self.seed = person, seed
        everything = [*data.forget, *data.retain]
        self.hers = [row for row in everything if row.subject == person and "perception" not in row.tags]
        self.others = [row for row in everything if row.subject != person]
        others = {name: [row for row in rows if row.subject != person] for name, rows in data.splits.items()}
        splits: dict[str, Rows] = {name: _about(data.splits[name], person) for name in FORGOTTEN}
        splits["her_perception"] = _about(data.splits["forget_perception"], person)
        splits |= {name: _sample(others[name], asked, seed) for name in KEPT}
        splits["others_forget"] = _sample([row for name in FORGOTTEN for row in others[name]], asked, seed)
        splits |= {name: _sample(others[name], asked, seed) for name in ("perception", "strangers")}
        self.splits = splits

    def poor(self, rows: Sequence[Example]) -> Rows:
        """One picture and one wording a fact, as in MLLMU-Bench; nothing by name."""
        found: dict[tuple[str | None, str], Example] = {}
        pictures: dict[str | None, Any] = {}
        for row in rows:
            if row.images and {STRANGER, "perception"}.isdisjoint(row.tags):
                pictures.setdefault(row.subject, row.images)
                found.setdefault((row.subject, row.tags[0]), row)
        return [Example(row.id, row.question, row.answer, pictures[row.subject], row.subject, row.keywords) for row in found.values()]

    def by_name(self, rows: Sequence[Example]) -> Rows:
        """Each fact by name, once."""
        return list({row.tags[0]: row for row in rows if not row.images}.values())

    def case(self, name: str) -> tuple[Rows, Rows]:
        """Forget rows and retain rows of a case."""
        eight = self.poor(self.hers)
        few = _sample(self.others, FEW, self.seed)
        return {
            "rich": (self.hers, self.others),
            "eight": (eight, self.others),
            "names": ([*eight, *self.by_name(self.hers)], self.others),
            "none": (eight, []),
            "few": (eight, few),
            "poor": (eight, self.poor(self.others)),
            "names-none": ([*eight, *self.by_name(self.hers)], []),
            "names-few": ([*eight, *self.by_name(self.hers)], few),
        }[name]

    def halves(self) -> tuple[Rows, Rows]:
        """Her rows about half of her facts, which an attacker trains on, and questions by name about the other half."""
        topics = sorted({row.tags[0] for row in self.splits["forget_text"]})
        kept = set(Random(f"halves/{self.seed}").sample(topics, (len(topics) + 1) // 2))
        return [row for row in self.hers if row.tags[0] not in kept], [row for row in self.splits["forget_text"] if row.tags[0] in kept]


CASES = ("rich", "eight", "names", "none", "few", "poor", "names-none", "names-few")


def _about(rows: Sequence[Example], person: str) -> Rows:
    return [row for row in rows if row.subject == person]


def _sample(rows: Sequence[Example], count: int, seed: int) -> Rows:
    return list(rows) if len(rows) <= count else Random(seed).sample(list(rows), count)


def figures(load: Callable[[], LoadedModel], people: People, steps: Sequence[int]) -> dict[str, Any]:
    """What a model answers, and what comes back.

    Args:
        load: loads the model; each attack by fine-tuning begins with a fresh one.
        people: rows to ask.
        steps: steps of fine-tuning; empty for no such attack.

    Returns:
        Accuracies in [0, 1] by split, and facts brought back.
    """
    loaded = load()
    found: dict[str, Any] = {name: each.accuracy for name, each in evaluate(loaded, people.splits).items()}
    prefix = Prefill(PrefillConfig()).run(loaded, Material(people.splits["forget_text"], []))[""].forget
    found["prefix_text"] = sum(prefix.values()) / len(prefix)
    taught, asked = people.halves()
    for name, rate in LEARNING.items():
        for count in steps:
            with without_info_messages():
                again = fit(load(), [], taught, _fine_tuning(rate, count, full="all" in name, seed=people.seed)).loaded
            back = evaluate(again, {"asked": asked})["asked"].accuracy
            found[f"relearned {name}, {count} steps"] = f"{round(back * len(asked))} of {len(asked)}"
    return found


def _fine_tuning(rate: float, steps: int, *, full: bool, seed: int) -> RunConfig:
    settings = {"training.steps": steps, "training.retain_batch": 8, "training.learning_rate": rate, "training.schedule": "constant"}
    settings |= {"training.warmup_steps": 5, "training.precision": "fp32", "validation.every": 0, "seed": seed}
    settings |= {"adapter": "null"} if full else {"adapter.rank": 8, "adapter.alpha": 16}
    return resolve(None, [f"{key}={value}" for key, value in settings.items()], method="finetune")


def run_case(folder: Path, people: People, case: str, options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Unlearn one case into `out`, and ask."""
    config = resolve(options.recipe, [f"neutral_retain={NEUTRAL}", f"seed={people.seed}", *options.set], method=options.method)
    forget, retain = people.case(case)
    loaded = load_model(folder / "base")
    started = time.monotonic()
    made = enrich(loaded, forget, seed=people.seed) if options.enrich else Enriched()
    given, forget = len(forget), [*forget, *made.facts, *made.forget]
    with Stages(quiet=True) as stages:
        kept = with_neutral(loaded, forget, retain, config, stages)
    fitted = train_and_export(loaded, forget, [*kept, *made.retain], config, held_out=made.held_out, out=out)
    seconds = time.monotonic() - started
    taken = max((step for points in fitted.curves.values() for step, _ in points), default=0)
    found = figures(lambda: load_model(out / "merged"), people, options.relearn)
    return found | {"rows": [given, len(retain)], "steps": taken, "stopped": fitted.stopped, "seconds": round(seconds, 1)}


def main() -> None:
    """Unlearn and ask; print a line for each figure, and write them."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="left by `vgid demo --keep-data`")
    parser.add_argument("--person", action="append", help="default: the first")
    parser.add_argument("--case", action="append", choices=CASES, help="default: all")
    parser.add_argument("--method", default=DEFAULT_METHOD)
    parser.add_argument("--recipe", help="default: none, as in `vgid forget`")
    parser.add_argument("--no-enrich", dest="enrich", action="store_false", help="train on the request's own rows alone")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--asked", type=int, default=150, help="questions of each split about others, at most")
    parser.add_argument("--relearn", type=int, nargs="*", default=[20, 100], help="steps of fine-tuning; none for no such attack")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--references", action="store_true", help="also ask the base, and the retrained model if it is there")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for person in options.person or [min(row.subject or "" for row in read_data(options.folder / "data").forget)]:
        people = People(options.folder, person, options.seed, options.asked)
        found = results.setdefault(person, {})
        for name in ("base", "retrained") if options.references else ():
            if (options.folder / name).is_dir():
                found[name] = figures(lambda name=name: load_model(options.folder / name), people, options.relearn)  # type: ignore[misc]
                show(name, found[name])
        for case in options.case or CASES:
            with tempfile.TemporaryDirectory() as out:
                found[case] = run_case(options.folder, people, case, options, Path(out))
            show(case, found[case])
        if options.json:
            settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
            write_result(options.json, {"settings": settings, "results": results}, *SOURCES)


def show(name: str, found: Mapping[str, Any]) -> None:
    """One case on one line."""
    texts = [f"{key} {value:.1%}" if isinstance(value, float) and value <= 1 else f"{key} {value}" for key, value in found.items()]
    print(f"{name}: {'; '.join(texts)}", flush=True)


if __name__ == "__main__":
    main()
