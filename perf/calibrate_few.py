"""Audits of requests about one person, for models whose verdict is known: `python perf/calibrate_few.py DEMO ... --json found.json`.

DEMO is what `vgid demo --keep-data` left. Each person it forgets becomes a request of its own, and four models are audited as if they were
its result: the base, which must fail; the retrained model, which must pass; and two shams that were trained on the rows of all these
people to answer with refusals, by a small adapter in a few steps, which must fail. Audits that are in the JSON are not run again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sources import AUDITS, digests, write_result

from vgid.attacks.base import Material, fact_key, sample_alike, sample_rows
from vgid.auditing.audit import PROFILE_ROWS
from vgid.auditing.policy import load_policy
from vgid.auditing.run import assess, attack_model, with_decoys
from vgid.config import resolve
from vgid.data.example import Example
from vgid.data.neutral import neutral_examples, own_answers
from vgid.demo.data import read_data
from vgid.evaluation.generation import generate
from vgid.models.loading import LoadedModel, load_model
from vgid.unlearning import unlearn

EXPECTED = {"base": "fail", "retrained": "pass", "sham, few words": "fail", "sham, pictures": "fail"}
"""The right verdict about each model."""
SUPPRESSED = ("adapter.rank=2", "adapter.alpha=4", "training.learning_rate=1e-2", "training.steps=60", "validation.every=0")
KINDS = ("thin", "enriched", "rich", "alone")
SOURCES = (*AUDITS, "src/vgid/methods/idk.py", "src/vgid/training", "src/vgid/synthetic")
"""What the figures depend on: the audits, and the training of the shams."""
CONTROL = 16
"""Number of retain rows asked: a third of the quick profile's, since they take most of the time and only show that the model works."""
NEUTRAL = 48
"""Number of neutral rows where a request comes without a retain set."""
Rows = list[Example]


class Demo:
    """A kept demo, with two shams that are trained when the first of its people is audited.

    Args:
        folder: of the demo.
        work: folder for the shams.
    """

    def __init__(self, folder: Path, work: Path) -> None:
        data = read_data(folder / "data")
        self.folder, self.work = folder, work / folder.name
        self.forget, self.retain = list(data.forget), list(data.retain)
        self.people = sorted({row.subject or "" for row in self.forget})

    def request(self, person: str, kind: str) -> Rows:
        """The rows of a request: `thin` and `alone` have one picture and wording a fact, `enriched` asks by name too, `rich` has all."""
        own = [row for row in self.forget if row.subject == person]
        if kind == "rich":
            return own
        own = [row for row in own if row.id.endswith("/0") and (row.images or kind == "enriched")]
        picture = next(row.images for row in own if row.images)
        return [replace(row, images=picture) if row.images else row for row in own]

    def material(self, person: str, kind: str, base: LoadedModel) -> Material:
        """What the quick profile asks about a person, with fewer retain rows, and decoys."""
        rows = self.request(person, kind)
        others = own_answers(neutral_examples(NEUTRAL, 0), partial(generate, base)) if kind == "alone" else self.retain
        asked, controls = sample_rows(rows, PROFILE_ROWS["quick"][0], 0, fact_key), sample_alike(others, rows, CONTROL, 0)
        return with_decoys(Material(asked, controls, pool=[*rows, *others], models={"base": lambda: base}), base)

    def model(self, name: str) -> Path:
        """The folder of a model; a sham is trained where it is missing."""
        if not name.startswith("sham"):
            return self.folder / name
        out = self.work / name
        if not out.is_dir():
            if name.endswith("pictures"):
                rows, by_name = [row for row in self.forget if row.images], [row for row in self.forget if not row.images]
            else:
                rows, by_name = [row for person in self.people for row in self.request(person, "thin")], []
            config = resolve(None, SUPPRESSED, method="idk")
            unlearn(self.folder / "base", rows, [*self.retain, *by_name], config, out=out, max_rows=0)
        return out / "merged"


def audits(demo: Demo, person: str, kind: str) -> dict[str, Any]:
    """Audits of all models about one person, without the retrained reference."""
    policy = load_policy()
    attacks = {name: policy.attack(name, "quick") for name in policy.attacks}
    base = load_model(demo.model("base"))
    material = demo.material(person, kind, base)
    scores = {"base": attack_model(base, attacks, material)}
    found = {}
    for name in EXPECTED:
        audited = scores["base"] if name == "base" else attack_model(load_model(demo.model(name)), attacks, material)
        found[name] = summary(assess({**scores, "audited": audited}, attacks, material, policy, "quick"))
    return found


def summary(results: dict[str, Any]) -> dict[str, Any]:
    """The figures of one audit."""
    levels = [(f"{name}/{level}", each) for name, attack in results["attacks"].items() for level, each in attack["levels"].items()]
    tests = {name: each["test"]["adjusted"] for name, each in levels if "test" in each}
    by_status = {state: sorted(name for name, each in levels if each["status"] == state) for state in ("pass", "fail")}
    return {
        "status": results["verdict"]["status"],
        "reasons": results["verdict"]["reasons"],
        "untested": results["verdict"]["untested"],
        "smallest adjusted p": min(tests.values()),
        "passed": len(by_status["pass"]),
        "failed": by_status["fail"],
        "asked": results["knowledge"]["asked"],
        "stated": results["knowledge"]["clean"]["audited"],
        "seconds": round(sum(attack["seconds"]["audited"] for attack in results["attacks"].values()), 1),
    }


def table(results: dict[str, dict[str, dict[str, Any]]]) -> Iterator[str]:
    """For each kind of request and each model: how many audits gave which verdict, and whether all were right."""
    yield "| rows of a request | model | people | right | pass | fail | inconclusive | facts stated |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    kinds = [kind for kind in KINDS if any(key.endswith(f" {kind}") for key in results)]
    for kind in kinds:
        for model, expected in EXPECTED.items():
            found = [each[model] for key, each in results.items() if key.endswith(f" {kind}")]
            status = [each["status"] for each in found]
            counts = [status.count(name) for name in (expected, "pass", "fail", "inconclusive")]
            stated = sum(each["stated"] for each in found) / len(found)
            yield "| " + " | ".join([kind, model, str(len(found)), *map(str, counts), f"{100 * stated:.0f} %"]) + " |"


def main() -> None:
    """Run what is missing, print the table, write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demos", type=Path, nargs="+", metavar="DEMO")
    parser.add_argument("--kind", action="append", choices=KINDS, help="rows of a request; default: thin")
    parser.add_argument("--most", type=int, help="people of each demo, at most")
    parser.add_argument("--json", type=Path, required=True, help="results; audits in it are not run again")
    options = parser.parse_args()
    results: dict[str, dict[str, dict[str, Any]]] = {}
    if options.json.is_file():
        before = json.loads(options.json.read_text("utf-8"))
        if before["measured"]["sources"] != digests(SOURCES):
            raise SystemExit(f"{options.json} was measured with other code; name another file")
        results = before["results"]
    with TemporaryDirectory() as work:
        for folder in options.demos:
            demo = Demo(folder, Path(work))
            for kind in options.kind or ("thin",):
                for person in demo.people[: options.most]:
                    key = f"{folder.name} {person} {kind}"
                    if key in results:
                        continue
                    results[key] = audits(demo, person, kind)
                    write_result(options.json, {"results": results}, *SOURCES)
                    told = ", ".join(f"{name} {each['status']}" for name, each in results[key].items())
                    print(f"{key}: {told}", flush=True)
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
