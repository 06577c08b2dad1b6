"""Audits of requests about one person, for models whose verdict is known: `python perf/calibrate_few.py DEMO ... --kinds thin,rich`.

DEMO is what `vgid demo --keep-data` left: each forgotten person of it becomes a request of its own. The base must fail and the retrained
model must pass; what the demo unlearned is shown beside them. Finished audits are kept next to the table and not run again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from vgid.artifacts import write_json_atomic
from vgid.attacks.base import Material, fact_key, sample_alike, sample_rows
from vgid.auditing.audit import PROFILE_ROWS
from vgid.auditing.policy import load_policy
from vgid.auditing.run import ModelScores, assess, attack_model, with_decoys
from vgid.data.example import Example
from vgid.data.neutral import neutral_examples, own_answers
from vgid.data.sources import load_examples
from vgid.evaluation.generation import generate
from vgid.models.loading import LoadedModel, load_model

MODELS = ("base", "retrained", "merged")
CONTROL = 16
"""Number of retain rows asked: a third of the quick profile's, since they take most of the time and only show that the model works."""
NEUTRAL = 48
"""Number of neutral rows where a request comes without a retain set."""


def requests(rows: Sequence[Example], kind: str) -> Iterator[tuple[str, list[Example]]]:
    """The forgotten people, each with the rows of a request.

    Kinds: `thin` and `alone` have one picture and one wording for each fact, `enriched` asks by name too, `rich` has all rows.
    """
    for person in sorted({row.subject or "" for row in rows}):
        own = [row for row in rows if row.subject == person]
        if kind != "rich":
            own = [row for row in own if row.id.endswith("/0") and (row.images or kind == "enriched")]
            picture = next(row.images for row in own if row.images)
            own = [replace(row, images=picture) if row.images else row for row in own]
        yield person, own


def material_of(rows: Sequence[Example], retain: Sequence[Example], base: LoadedModel) -> Material:
    """What the quick profile asks, with fewer retain rows, and decoys."""
    asked, controls = sample_rows(rows, PROFILE_ROWS["quick"][0], 0, fact_key), sample_alike(retain, rows, CONTROL, 0)
    return with_decoys(Material(asked, controls, pool=[*rows, *retain]), base)


def audits(demo: Path, kind: str, kept: Path, left: list[int]) -> Iterator[dict[str, Any]]:
    """The audits of one demo's people, finished ones read from their files."""
    policy = load_policy()
    attacks = {name: policy.attack(name, "quick") for name in policy.attacks}
    forget, retain = (load_examples(demo / "data" / f"{name}.jsonl") for name in ("forget", "retain"))
    base: LoadedModel | None = None
    for person, rows in requests(forget, kind):
        path = kept / f"{demo.name}-{kind}-{person}.json"
        if not path.is_file():
            if not left[0]:
                return
            left[0] -= 1
            base = base or load_model(demo / "base")
            others = own_answers(neutral_examples(NEUTRAL, 0), partial(generate, base)) if kind == "alone" else retain
            material = material_of(rows, others, base)
            scores: dict[str, ModelScores] = {}
            for model in MODELS:
                scores[model] = attack_model(base if model == "base" else load_model(demo / model), attacks, material)
            found = {}
            for model in MODELS:
                roles = {"base": scores["base"], "audited": scores[model]}
                found[model] = assess(roles, attacks, material, policy, "quick")
                found[f"{model}, reference"] = assess({**roles, "retrained": scores["retrained"]}, attacks, material, policy, "quick")
            write_json_atomic(path, found)
        for model, results in json.loads(path.read_text("utf-8")).items():
            yield {"demo": demo.name, "kind": kind, "person": person, "model": model, **summary(results)}


def summary(results: dict[str, Any]) -> dict[str, Any]:
    """The figures of one audit."""
    tests = [level["test"] for attack in results["attacks"].values() for level in attack["levels"].values() if "test" in level]
    return {
        "status": results["verdict"]["status"],
        "reasons": results["verdict"]["reasons"],
        "untested": results["verdict"]["untested"],
        "smallest adjusted p": min(test["adjusted"] for test in tests),
        "passed": sum(attack["status"] == "pass" for attack in results["attacks"].values()),
        "failed": sum(attack["status"] == "fail" for attack in results["attacks"].values()),
        "seconds": {role: sum(attack["seconds"][role] for attack in results["attacks"].values()) for role in ("base", "audited")},
    }


def main() -> None:
    """Run what is missing, print the table, write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demos", type=Path, nargs="+", metavar="DEMO")
    parser.add_argument("--kinds", default="thin,enriched,rich,alone")
    parser.add_argument("--out", type=Path, required=True, help="folder for finished audits and table.json")
    parser.add_argument("--most", type=int, default=1000, help="requests to audit at most; the next call goes on")
    options = parser.parse_args()
    left, table = [options.most], []
    options.out.mkdir(parents=True, exist_ok=True)
    for kind in options.kinds.split(","):
        for demo in options.demos:
            for each in audits(demo, kind, options.out, left):
                table.append(each)
                print(f"{each['demo']} {kind:<9} {each['person']} {each['model']:<21} {each['status']:<13}", end=" ")
                print(f"p {each['smallest adjusted p']:.4f}  {each['passed']} passed  {'; '.join(each['reasons'])[:120]}", flush=True)
    for kind, model in dict.fromkeys((each["kind"], each["model"]) for each in table):
        status = [each["status"] for each in table if (each["kind"], each["model"]) == (kind, model)]
        counts = ", ".join(f"{status.count(name)} {name}" for name in ("pass", "fail", "inconclusive"))
        print(f"{kind:<9} {model:<21} {len(status)} people: {counts}")
    write_json_atomic(options.out / "table.json", table)


if __name__ == "__main__":
    main()
