"""Requests in a row, each about one person: `python perf/sequence.py --model BASE --forget forget.jsonl --retain retain.jsonl`.

Each starts from the result of the one before. What counts: how much of the retain set is lost in all, and whether earlier deletions
still hold by the policy they were judged by. Those who will ask later belong to the retain set until they do, as they would in
practice: nobody knows yet that they will. `--model` is a model that has memorised both sets, as `vgid demo --keep-data` leaves it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from sources import AUDITS, RUNS, write_result

from vgid.config import load_config
from vgid.data.sources import load_examples
from vgid.data.writing import write_examples
from vgid.progress import Stages
from vgid.requests.forget import forget
from vgid.requests.options import ForgetOptions

POLICY = """least_people: 1
attacks:
  paraphrase: {most: 0.1}
  image_rephrase: {most: 0.1}
  jailbreak: {most: 0.1}
  quantize: {most: 0.1}
"""
"""Cheap attacks only: this is about what later requests do to earlier ones."""


def main() -> None:
    """Run the requests and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--forget", type=Path, required=True)
    parser.add_argument("--retain", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=10)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = sequence(options, options.keep or Path(folder))
    for each in results:
        print(line(each))
    if options.json:
        write_result(options.json, {"requests": results}, "perf/sequence.py", "src/vgid/requests", *RUNS, *AUDITS)


def sequence(options: argparse.Namespace, root: Path) -> list[dict[str, Any]]:
    """The requests, one person each; what each run's record says of all so far."""
    rows, kept = load_examples(options.forget), load_examples(options.retain)
    root.mkdir(parents=True, exist_ok=True)
    (root / "policy.yaml").write_text(POLICY, "utf-8")
    results: list[dict[str, Any]] = []
    after: Path | None = None
    people = sorted({row.subject or "" for row in rows})
    for number, person in enumerate(people[: options.requests], 1):
        later = [row for row in rows if row.subject in people[number:]]
        write_examples(root / f"retain-{number}.jsonl", [*kept, *later])
        write_examples(root / f"request-{number}" / "rows.jsonl", [row for row in rows if row.subject == person])
        (root / f"request-{number}" / "request.yaml").write_text(f"id: R-{number}\n", "utf-8")
        wanted = ForgetOptions(
            model=str(options.model) if after is None else None,
            request=root / f"request-{number}",
            out=root / f"run-{number}",
            config=load_config(None, [*options.set, "seed=0"]),
            retain=root / f"retain-{number}.jsonl",
            policy=root / "policy.yaml",
            max_rows=options.rows,
            after=after,
        )
        started = time.monotonic()
        with Stages(quiet=True) as stages:
            record = forget(wanted, stages=stages).record
        results.append(told(record) | {"seconds": round(time.monotonic() - started, 1)})
        print(line(results[-1]), flush=True)
        after = root / f"run-{number}"
    return results


def told(record: dict[str, Any]) -> dict[str, Any]:
    """What a record says of its own request, earlier ones, and drift."""
    splits, sequence = record["verification"]["evaluation"], record["sequence"]
    drift = sequence["drift"] if sequence else {"requests": 1, "drop": None}
    retain = {name: figures["accuracy"] for name, figures in splits["retain"].items()}
    return {
        "request": record["request"]["id"],
        "requests": drift["requests"],
        "status": record["conclusion"]["status"],
        "reasons": record["verification"]["reasons"],
        "forget": splits["forget"]["unlearned"]["accuracy"],
        "retain": retain["unlearned"],
        "drop": drift["drop"] if sequence else retain["base"] - retain["unlearned"],
        "earlier": {each["request"]: [each["status"], each["still_told"]] for each in (sequence or {"earlier": ()})["earlier"]},
    }


def line(result: dict[str, Any]) -> str:
    """One request."""
    earlier = ", ".join(f"{name} {status} ({told:.2f})" for name, (status, told) in result["earlier"].items())
    figures = f"forget {result['forget']:.3f}  retain {result['retain']:.3f}  lost in all {result['drop']:+.3f}"
    return f"{result['request']:<6} {result['status']:<13} {figures}  earlier: {earlier or 'none'}  {result.get('seconds', 0):.0f} s"


if __name__ == "__main__":
    main()
