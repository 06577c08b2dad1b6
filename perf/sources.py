"""Which code a result was measured with: digests of the source files in the result, and whether they are still the same.

The benchmarks here write it into their results by themselves. Results of `vgid demo`, `vgid compare` and other commands are kept by
`python perf/sources.py keep RESULT.json NAME`; `python perf/sources.py list` says which results are older than the code.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "perf" / "results"
STEP = (
    "src/vgid/methods/base.py",
    "src/vgid/methods/engine.py",
    "src/vgid/methods/common",
    "src/vgid/methods/vgid",
    "src/vgid/models/adapters.py",
    "src/vgid/models/forward.py",
    "src/vgid/models/fused_lora.py",
    "src/vgid/models/packing.py",
    "src/vgid/models/pictures.py",
    "src/vgid/data/batching.py",
    "src/vgid/data/packing.py",
    "src/vgid/data/processed_once.py",
    "src/vgid/training/gradient_step.py",
    "src/vgid/training/shares.py",
    "src/vgid/instructions.py",
    "src/vgid/losses.py",
    "src/vgid/perturbation.py",
    "src/vgid/settings.py",
)
"""What a training step of VGID consists of."""
ANSWERS = (
    "src/vgid/evaluation/generation.py",
    "src/vgid/evaluation/decoding.py",
    "src/vgid/models/forward.py",
    "src/vgid/data/batching.py",
    "src/vgid/data/processed_once.py",
)
"""What generates answers."""
RUNS = (*STEP, "src/vgid/methods", "src/vgid/training", "src/vgid/synthetic", "src/vgid/evaluation", "src/vgid/recipes")
"""What the figures of a demo or a comparison depend on."""
AUDITS = ("src/vgid/attacks", "src/vgid/auditing")
"""What an audit consists of, beside the model that it attacks."""
METRICS = (
    "src/vgid/metrics",
    "src/vgid/experiments/inputs.py",
    "src/vgid/experiments/meta.py",
    "src/vgid/experiments/pools.py",
    "src/vgid/experiments/trust.py",
)
"""What a test of metrics consists of, beside attacks and training."""


class Measured(NamedTuple):
    """When a result was measured, and with which code.

    Attributes:
        date: day of the measurement, as `2026-11-26`.
        commit: the commit at that time; its files may have been changed since, which the digests tell.
        sources: SHA-256 of each file that was measured, by path from the project's root; empty for results that were measured before
            digests were kept, which count as older.
    """

    date: str
    commit: str
    sources: Mapping[str, str]

    @property
    def older(self) -> bool:
        """Whether the result belongs to other code than the present."""
        return not self.sources or digests(self.sources) != dict(self.sources)

    @property
    def day(self) -> str:
        """The date as the documentation writes it: `26 November 2026`."""
        day = datetime.strptime(self.date, "%Y-%m-%d")
        return f"{day.day} {day:%B %Y}"


def digests(paths: Iterable[str]) -> dict[str, str]:
    """Digests of source files.

    Args:
        paths: files and folders from the project's root; a folder stands for all `.py` and `.yaml` files in it.

    Returns:
        SHA-256 by path. Python files count by their syntax tree without docstrings, so that comments and wording do not make a
        result older. A file that is gone has an empty digest.
    """
    files: dict[str, str] = {}
    for each in paths:
        place = ROOT / each
        found = sorted(f for f in place.rglob("*") if f.suffix in (".py", ".yaml")) if place.is_dir() else [place]
        files |= {str(file.relative_to(ROOT)): _digest(file) for file in found}
    return dict(sorted(files.items()))


def measured(*paths: str) -> dict[str, Any]:
    """The entry `measured` of a result, for the present code.

    Args:
        paths: what is measured, as for `digests`.
    """
    commit = subprocess.run(["git", "rev-parse", "--short=7", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    return Measured(f"{datetime.now(UTC):%Y-%m-%d}", commit or "unknown", digests(paths))._asdict()


def write_result(path: Path, result: Mapping[str, Any], *paths: str) -> None:
    """Write a benchmark's result with the entry `measured`.

    Args:
        path: the JSON file.
        result: its figures and settings.
        paths: what they were measured with, as for `digests`.
    """
    path.write_text(json.dumps({**result, "measured": measured(*paths)}, indent=2) + "\n", "utf-8")


def read(path: Path) -> Measured:
    """When and with what the result in a file was measured."""
    return Measured(**json.loads(path.read_text("utf-8"))["measured"])


def _digest(file: Path) -> str:
    if not file.is_file():
        return ""
    data = file.read_bytes()
    if file.suffix == ".py":
        tree = ast.parse(data)
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                node.body = [each for each in body if not _is_text(each)]  # type: ignore[attr-defined]
        data = ast.dump(tree).encode()
    return hashlib.sha256(data).hexdigest()


def _is_text(node: ast.AST) -> bool:
    """Whether a statement is a docstring, of whatever it stands at."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _keep(options: argparse.Namespace) -> None:
    result = json.loads(options.result.read_text("utf-8"))
    paths = (*RUNS, *(AUDITS if options.audit or options.metrics else ()), *(METRICS if options.metrics else ()))
    write_result(RESULTS / f"{options.name}.json", result, *paths)


def _list(_: argparse.Namespace) -> None:
    for path in sorted(RESULTS.glob("*.json")):
        found = read(path)
        print(f"{path.name:32} {found.date} {found.commit} {'older than the code' if found.older else 'of the present code'}")


def main() -> None:
    """Keep a result of a command, or list all results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    keep = commands.add_parser("keep", help="keep a command's result in perf/results, with the digests of what it was measured with")
    keep.add_argument("result", type=Path)
    keep.add_argument("name")
    keep.add_argument("--audit", action="store_true", help="the result is an audit's: it depends on attacks and policy too")
    keep.add_argument("--metrics", action="store_true", help="the result is that of a test of metrics")
    keep.set_defaults(call=_keep)
    commands.add_parser("list", help="all results, and which are older than the code").set_defaults(call=_list)
    options = parser.parse_args()
    options.call(options)


if __name__ == "__main__":
    main()
