"""Requests to a small model that take seconds."""

import shutil
from dataclasses import replace
from pathlib import Path

from tests.conftest import example
from vgid.config import load_config
from vgid.data.writing import write_examples
from vgid.progress import Stages
from vgid.requests.forget import ForgetResult, forget
from vgid.requests.options import ForgetOptions

SETTINGS = (
    "method.replay.narrow=false",
    "training.steps=3",
    "training.checkpoint_every=1",
    "training.forget_batch=2",
    "training.retain_batch=2",
    "method.answers=[recorded]",
    "validation.every=0",
)
POLICY = "least_facts: 1\nattacks:\n  paraphrase: {settings: {wordings: 1}}\n  prefill: {}\n"


def make_request(folder: Path, first: int = 0, rows: int = 4, id: str | None = "T-1") -> Path:
    """A request folder of rows with pictures and without."""
    write_examples(folder / "rows.jsonl", [replace(example(n, image=n % 2 == 0), id=f"row-{n}") for n in range(first, first + rows)])
    if id:
        (folder / "request.yaml").write_text(f"id: {id}\nreceived: 2026-05-01\nground: GDPR Art. 17\n", "utf-8")
    return folder


def make_options(root: Path, model: Path, **changes: object) -> ForgetOptions:
    """Options for a request, a retain set and a policy below `root`, which are made."""
    request = make_request(root / "request") if "request" not in changes else None
    if not (root / "retain.jsonl").exists():
        write_examples(root / "retain.jsonl", [example(n, answer="I do not know.") for n in range(20, 28)])
        (root / "policy.yaml").write_text(POLICY, "utf-8")
    given: dict[str, object] = {"model": str(model), "request": request, "out": root / "out", "config": load_config(None, SETTINGS)}
    given |= {"retain": root / "retain.jsonl", "policy": root / "policy.yaml", "max_rows": 4, "allow_unknown": True}
    return ForgetOptions(**{**given, **changes})  # type: ignore[arg-type]


def honour(options: ForgetOptions) -> ForgetResult:
    """Run it without progress bars."""
    with Stages(quiet=True) as stages:
        return forget(options, stages=stages)


def copy_run(root: Path, to: Path) -> Path:
    """A copy of the folder around runs, whose states name the copied requests and keys."""
    shutil.copytree(root, to)
    for state in to.glob("*/work/state.json"):
        state.write_text(state.read_text("utf-8").replace(str(root), str(to)), "utf-8")
    return to
