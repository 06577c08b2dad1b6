"""One person's request as it really comes, on people you choose: `python perf/one_person.py runs/demo --json found.json`.

`runs/demo` is what `vgid demo --keep-data` leaves (`--seed 1` there makes other people). `vgid forget` forgets one of them with its
defaults, from many rows or few, with a rich retain set or none. Then the exported model is asked: her facts by other pictures, in other
wordings and by name; the rest of a fact by name whose sentence is begun; what fine-tuning on half of her facts brings back of the other
half; everybody else's facts; what pictures show. What is asked by name is asked of people who do not exist too: a model that says the same
of them guesses. The same is asked of the base, of the retrained model, and of models that only look unlearned, which the audit must fail.
Cases that are in the JSON are not run again, so a stopped run goes on, and more people can be added.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from random import Random
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from sources import AUDITS, RUNS, digests, write_result

from vgid.attacks.base import Material
from vgid.attacks.prefill import Prefill, PrefillConfig
from vgid.auditing.audit import audit
from vgid.config import RunConfig, recipe_names, resolve
from vgid.data.example import STRANGER, Example, altered
from vgid.data.writing import write_examples
from vgid.demo.data import read_data
from vgid.enrichment import KINDS
from vgid.errors import StoppedError, VgidError
from vgid.evaluation.evaluate import evaluate
from vgid.models.loading import LoadedModel, load_model
from vgid.outcome import EXIT_CODE
from vgid.progress import Stages, without_info_messages
from vgid.reading import read_json
from vgid.requests.forget import forget
from vgid.requests.options import ForgetOptions
from vgid.training.fit import fit

FEW = 50
"""Rows of a small retain set."""
FORGOTTEN = ("forget", "forget_views", "forget_reworded", "forget_text")
KEPT = ("retain", "retain_views", "retain_reworded", "retain_text")
LEARNING = {"lora 1e-3": 1e-3, "lora 3e-4": 3e-4, "all weights 2e-4": 2e-4}
"""How half of her facts are learned again, with which learning rate."""
INVENTED = ("Zora Quill", "Mara Lind", "Tessa Brook", "Ivo Hartig", "Nils Ocker")
"""Names of nobody."""
PART = "phone"
"""The fact of a request for a part."""
WANTED = {"everybody": 0.99, "few": 0.95, "nobody": 0.9}
"""Share of what the base answers about others that must stay, by retain set."""
SOURCES = (
    *RUNS,
    *AUDITS,
    "src/vgid/data/probes.py",
    "src/vgid/data/replay.py",
    "src/vgid/models/inversion.py",
    "src/vgid/enrichment",
    "src/vgid/requests",
    "src/vgid/outcome.py",
)
"""What the figures depend on."""
Rows = list[Example]


@dataclass(frozen=True)
class Case:
    """A request.

    Attributes:
        rows: `eight` (one picture and one wording a fact), `rich` (all), `who` (only who she is), or `pictured` (all with pictures).
        retain: `everybody` else's rows, a `few` of them, a `poor` set (one picture and one wording a fact), or `nobody`.
        recipe: recipe; None for the command's defaults.
        method: method, and its settings in `set`.
        set: settings.
        scope: facts to forget, where the others stay.
        enrich: whether the command makes rows in other forms.
        sham: only looks unlearned, so that the audit must fail.
    """

    rows: str = "eight"
    retain: str = "everybody"
    recipe: str | None = None
    method: str | None = None
    set: tuple[str, ...] = ()
    scope: tuple[str, ...] = ()
    enrich: bool = True
    sham: bool = False


SUPPRESSED = ("adapter.rank=2", "adapter.alpha=4", "training.learning_rate=1e-2", "training.steps=60", "validation.every=0")
CASES: Mapping[str, Case] = {
    "full": Case(),
    "50 rows": Case(retain="few"),
    "none": Case(retain="nobody"),
    "poor": Case(retain="poor"),
    "rich": Case("rich"),
    "only who": Case("who"),
    "only phone": Case(scope=(PART,)),
    "sham: few words": Case(method="idk", set=SUPPRESSED, enrich=False, sham=True),
    "sham: pictures": Case("pictured", method="idk", set=SUPPRESSED, enrich=False, sham=True),
    **{f"recipe {name}": Case(recipe=name) for name in recipe_names() if resolve(name).method.name != "finetune"},
}
MODELS = ("base", "retrained")
"""Models that are asked as they are."""


class People:
    """The rows of a kept demo, as one person's request meets them."""

    def __init__(self, folder: Path, person: str, seed: int, asked: int) -> None:
        data = read_data(folder / "data")
        self.person, self.seed = person, seed
        everything = [*data.forget, *data.retain]
        self.hers = [row for row in everything if row.subject == person and "perception" not in row.tags]
        if not self.hers:
            raise SystemExit(f"{folder}: nobody is called {person}")
        self.others = [row for row in everything if row.subject != person]
        self.kept = list(data.retain)
        """Rows about people whom the retrained model knows too: it was trained without everybody that the demo forgets."""
        others = {name: [row for row in rows if row.subject != person] for name, rows in data.splits.items()}
        # Of a retained person the demo asks in the splits of the retain set.
        about = {name: _about([*data.splits[name], *data.splits[name.replace("forget", "retain")]], person) for name in FORGOTTEN}
        splits: dict[str, Rows] = {name: rows for name, rows in about.items() if rows}
        splits["her_perception"] = _about([*data.splits["forget_perception"], *data.splits["perception"]], person)
        splits |= {name: _sample(others[name], asked, seed) for name in KEPT}
        splits["others_forget"] = _sample([row for name in FORGOTTEN for row in others[name]], asked, seed)
        splits |= {name: _sample(others[name], asked, seed) for name in ("perception", "strangers")}
        self.splits = {name: rows for name, rows in splits.items() if rows}

    def poor(self, rows: Sequence[Example]) -> Rows:
        """One picture and one wording a fact, as in MLLMU-Bench; nothing by name."""
        found: dict[tuple[str | None, str], Example] = {}
        pictures: dict[str | None, Any] = {}
        for row in rows:
            if row.images and {STRANGER, "perception"}.isdisjoint(row.tags):
                pictures.setdefault(row.subject, row.images)
                found.setdefault((row.subject, row.tags[0]), row)
        return [Example(row.id, row.question, row.answer, pictures[row.subject], row.subject, row.keywords) for row in found.values()]

    def forget(self, case: Case) -> Rows:
        """What is requested."""
        pictured = [row for row in self.hers if row.images]
        who = [row for row in pictured if row.tags[0] == "name"]
        return {"rich": self.hers, "pictured": pictured, "who": who}[case.rows] if case.rows != "eight" else self.poor(self.hers)

    def retain(self, case: Case) -> Rows:
        """What is given beside it."""
        if case.retain == "poor":
            return self.poor(self.others)
        others = [*self.others, *(row for row in self.hers if not row.images)] if case.rows == "pictured" else self.others
        return {"everybody": others, "few": _sample(self.others, FEW, self.seed), "nobody": []}[case.retain]

    def asked(self, case: Case) -> Mapping[str, Rows]:
        """What is asked afterwards: where a part must be forgotten, her other facts must stay."""
        if not case.scope:
            return self.splits
        part = {name: [row for row in self.splits[name] if row.tags[0] in case.scope] for name in FORGOTTEN if name in self.splits}
        rest = [row for name in FORGOTTEN for row in self.splits.get(name, []) if row.tags[0] not in case.scope]
        return {**self.splits, **part, "her_other_facts": rest}

    def of_nobody(self, rows: Sequence[Example]) -> list[Rows]:
        """Rows by her name, for each invented name."""
        name = next(row.keywords[0] for row in self.hers if row.tags[0] == "name")
        return [[altered(row, question=row.question.replace(name, other)) for row in rows] for other in INVENTED]

    @cached_property
    def halves(self) -> tuple[Rows, Rows]:
        """Her rows about half of her facts, which an attacker trains on, and questions by name about the other half."""
        topics = sorted({row.tags[0] for row in self.splits["forget_text"]})
        kept = set(Random(f"halves/{self.seed}").sample(topics, (len(topics) + 1) // 2))
        return [row for row in self.hers if row.tags[0] not in kept], [row for row in self.splits["forget_text"] if row.tags[0] in kept]


def _about(rows: Sequence[Example], person: str) -> Rows:
    return [row for row in rows if row.subject == person]


def _sample(rows: Sequence[Example], count: int, seed: int) -> Rows:
    return list(rows) if len(rows) <= count else Random(seed).sample(list(rows), count)


def figures(load: Callable[[], LoadedModel], people: People, asked: Mapping[str, Rows], steps: Sequence[int]) -> dict[str, Any]:
    """What a model answers, and what comes back.

    Args:
        load: loads the model; each attack by fine-tuning begins with a fresh one.
        people: whose facts are learned again.
        asked: rows by split.
        steps: steps of fine-tuning; empty for no such attack.

    Returns:
        `answered`: accuracies in [0, 1] by split; `prefix`: share of facts by name that a begun sentence brings; `relearned`: facts that
        each fine-tuning brings back, and of how many; `guessed`: the same two, as means over people who do not exist.
    """
    loaded = load()
    found: dict[str, Any] = {"answered": {name: each.accuracy for name, each in evaluate(loaded, asked).items()}}
    begun = [_begun(loaded, rows) for rows in (asked["forget_text"], *people.of_nobody(asked["forget_text"]))]
    taught, half = people.halves
    found |= {"prefix": begun[0], "relearned": {}, "guessed": {"prefix": fmean(begun[1:]), "relearned": {}}}
    for name, rate in LEARNING.items():
        for count in steps:
            with without_info_messages():
                again = fit(load(), [], taught, _fine_tuning(rate, count, full="all" in name, seed=people.seed)).loaded
            splits = {str(place): rows for place, rows in enumerate([half, *people.of_nobody(half)])}
            back, *guessed = (each.accuracy for each in evaluate(again, splits).values())
            found["relearned"][f"{name}, {count} steps"] = [round(back * len(half)), len(half)]
            found["guessed"]["relearned"][f"{name}, {count} steps"] = round(fmean(guessed) * len(half), 1)
    return found


def _begun(loaded: LoadedModel, rows: Rows) -> float:
    found = Prefill(PrefillConfig()).run(loaded, Material(rows, []))[""].forget
    return fmean(found.values())


def _fine_tuning(rate: float, steps: int, *, full: bool, seed: int) -> RunConfig:
    settings = {"training.steps": steps, "training.retain_batch": 8, "training.learning_rate": rate, "training.schedule": "constant"}
    settings |= {"training.warmup_steps": 5, "training.precision": "fp32", "validation.every": 0, "seed": seed}
    settings |= {"adapter": "null"} if full else {"adapter.rank": 8, "adapter.alpha": 16}
    return resolve(None, [f"{key}={value}" for key, value in settings.items()], method="finetune")


def run_case(folder: Path, people: People, case: Case, options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Run `vgid forget` in `work`, and ask the exported model.

    Args:
        folder: the kept demo.
        people: the rows.
        case: the request.
        options: of the command line.
        work: an empty folder.

    Returns:
        The figures, the exit code of `vgid forget`, the verdict of its audit, and where its time went in seconds; of a command that failed,
        the exit code and the error.
    """
    config = resolve(case.recipe, [f"seed={people.seed}", *case.set, *options.set], method=case.method)
    given, kept = people.forget(case), people.retain(case)
    write_examples(work / "request" / "rows.jsonl", given)
    if case.scope:
        (work / "request" / "request.yaml").write_text(f"scope: [{', '.join(case.scope)}]\n", "utf-8")
    if kept:
        write_examples(work / "retain.jsonl", kept)
    asked = ForgetOptions(
        model=str(folder / "base"),
        request=work / "request",
        out=work / "run",
        config=config,
        retain=work / "retain.jsonl" if kept else None,
        without=() if case.enrich else tuple(KINDS),
    )
    try:
        with Stages(quiet=True) as stages:
            done = forget(asked, stages=stages)
    except StoppedError:
        raise
    except VgidError as error:
        return {"exit_code": 2, "error": str(error)}
    record, trained = done.record, read_json(work / "run" / "work" / "unlearn" / "results.json")
    found = figures(lambda: load_model(work / "run" / "merged"), people, people.asked(case), options.relearn)
    verification = record["verification"]
    return found | {
        "exit_code": 0 if done.passed else EXIT_CODE,
        "conclusion": record["conclusion"]["statement"],
        "next_steps": record["conclusion"]["next_steps"],
        "audit": _audit(verification["status"], verification["attacks"], verification["reasons"]),
        "rows": {"forget": len(given), "retain": len(kept)},
        "outcome": verification["outcome"],
        "training": trained["training"],
        "seconds": record["procedure"]["seconds"],
    }


def ask_model(folder: Path, name: str, people: People, options: argparse.Namespace) -> dict[str, Any]:
    """Ask the base or the retrained model, and audit it as if it were the result of the eight-row request."""
    found = figures(lambda: load_model(folder / name), people, people.splits, options.relearn)
    with Stages(quiet=True) as stages:
        rows = people.forget(Case())
        retain = people.kept if name == "retrained" else people.others
        done = audit(str(folder / name), base=str(folder / "base"), forget=rows, retain=retain, seed=people.seed, stages=stages)
    return found | {"audit": _audit(done.status, done.results["attacks"], done.reasons)}


def _audit(status: str, attacks: Mapping[str, Any], reasons: Sequence[str]) -> dict[str, Any]:
    by_status = {state: sorted(name for name, each in attacks.items() if each["status"] == state) for state in ("pass", "fail")}
    return {"status": status, "reasons": list(reasons), "passed": by_status["pass"], "failed": by_status["fail"]}


# -- the table ------------------------------------------------------------------------------------------------------------


def missed(name: str, found: Mapping[str, Any], base: Mapping[str, Any] | None, retrained: Mapping[str, Any] | None) -> list[str]:
    """What a case does not reach.

    Args:
        name: name of the case.
        found: its figures.
        base: those of the base; what needs them is left out without.
        retrained: those of the retrained model, likewise.

    Returns:
        One text for each; empty where everything is reached.
    """
    if name in MODELS or "error" in found:
        wrong = name in MODELS and (found["audit"]["status"] == "pass") != (name == "retrained")
        return ["the audit"] if wrong else ["ended with an error"] if "error" in found else []
    case = CASES[name]
    if case.sham:
        return ["failed in the audit"] if found["audit"]["status"] != "fail" else []
    texts = [split for split in FORGOTTEN if found["answered"].get(split, 0.0) > 0]
    texts += ["exit code 0"] if found["exit_code"] else []
    if base:
        before, after = base["answered"], found["answered"]
        texts += [split for split in KEPT if after[split] < WANTED.get(case.retain, 0.0) * before[split]]
        texts += ["what her pictures show"] if after["her_perception"] < before["her_perception"] - 0.02 else []
    if retrained:
        texts += ["prefix"] if found["prefix"] > retrained["prefix"] + 1e-9 else []
        texts += [f"relearning: {way}" for way, (back, _) in found["relearned"].items() if back > retrained["relearned"][way][0] + 1]
    return texts


COLUMNS = (*FORGOTTEN, "her_perception", *KEPT, "perception", "strangers")


def table(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[str]:
    """The results as lines of Markdown; accuracies in percent, and in brackets what is guessed of nobody."""
    head = ["person", "case", *COLUMNS, "prefix", "relearned, most", "audit", "exit code", "not reached"]
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for person, cases in results.items():
        for name, found in cases.items():
            answered = found.get("answered", {})
            cells = [person, name, *(f"{100 * answered[each]:.1f}" if each in answered else "" for each in COLUMNS)]
            ways = found.get("relearned", {})
            most = max(ways, key=lambda way: ways[way][0], default=None)
            cells.append(f"{100 * found['prefix']:.1f} ({100 * found['guessed']['prefix']:.1f})" if "prefix" in found else "")
            cells.append(f"{ways[most][0]} of {ways[most][1]} ({found['guessed']['relearned'][most]:g})" if most else "")
            cells += [found.get("audit", {}).get("status", ""), str(found.get("exit_code", ""))]
            cells.append(", ".join(missed(name, found, cases.get("base"), cases.get("retrained"))))
            yield "| " + " | ".join(cells) + " |"


@dataclass
class Kept:
    """Results in a file, which is written after every case.

    Attributes:
        path: the file; None keeps nothing.
        settings: what all cases in it have in common.
        results: by person and case.
    """

    path: Path | None
    settings: Mapping[str, Any]
    results: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def read(self) -> None:
        """Go on from the file, if it is there.

        Raises:
            SystemExit: other settings or other code measured what is in it.
        """
        if self.path is None or not self.path.is_file():
            return
        before = json.loads(self.path.read_text("utf-8"))
        if before["settings"] != self.settings or before["measured"]["sources"] != digests(SOURCES):
            raise SystemExit(f"{self.path} was measured with other settings or other code; name another file")
        self.results = before["results"]

    def put(self, person: str, case: str, found: dict[str, Any]) -> None:
        """Add a case."""
        self.results.setdefault(person, {})[case] = found
        if self.path is not None:
            write_result(self.path, {"settings": self.settings, "results": self.results}, *SOURCES)


def main() -> None:
    """Run what is missing; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="+", help="left by `vgid demo --keep-data`")
    parser.add_argument("--person", action="append", help="whom to forget; default: the first three of each folder")
    parser.add_argument("--case", action="append", choices=(*MODELS, *CASES), help="default: all")
    parser.add_argument("--set", action="append", default=[], help="setting of all cases, as in `vgid forget`")
    parser.add_argument("--asked", type=int, default=150, help="questions of each split about others, at most")
    parser.add_argument("--relearn", type=int, nargs="*", default=[20, 100], help="steps of fine-tuning; none for no such attack")
    parser.add_argument("--seed", type=int, default=0, help="of the runs; the people's is that of the demo")
    parser.add_argument("--json", type=Path, help="results; cases in it are not run again")
    options = parser.parse_args()
    kept = Kept(options.json, {name: getattr(options, name) for name in ("set", "asked", "relearn", "seed")})
    kept.read()
    for folder in options.folder:
        known = sorted({row.subject or "" for row in read_data(folder / "data").forget})
        for person in options.person or known[:3]:
            people = People(folder, person, options.seed, options.asked)
            for name in options.case or (*MODELS, *CASES):
                if name in kept.results.get(person, {}) or (name in MODELS and not (folder / name).is_dir()):
                    continue
                with TemporaryDirectory() as work:
                    found = ask_model(folder, name, people, options) if name in MODELS else None
                    kept.put(person, name, found or run_case(folder, people, CASES[name], options, Path(work)))
                print(f"{person}: {name} done", flush=True)
    print("\n".join(table(kept.results)))


if __name__ == "__main__":
    main()
