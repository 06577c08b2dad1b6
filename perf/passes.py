"""What one default step asks of the machine: passes, waits for the device, padding, operations: `python perf/passes.py --json FILE`.

Counts, not times: they are the same on every machine, and a GPU at 7B is bound by them (launches, waits), not by arithmetic.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from common import build, rows_about
from sources import STEP, write_result
from torch.utils._python_dispatch import TorchDispatchMode

from vgid.config import resolve
from vgid.data.example import Example
from vgid.data.packing import Style
from vgid.methods.base import Context, StepBatch
from vgid.models.adapters import attach_lora
from vgid.models.pictures import find_pictures
from vgid.models.structure import base_of
from vgid.settings import AdapterConfig
from vgid.training.gradient_step import GradientStep

BEFORE = {"student_passes": 3, "base_passes": 2, "adversary_passes": 1, "commit": "d65c0a8"}
"""What the step of an earlier commit needed on these rows; its operations are measured by `--before` and written beside."""
HOST = ("vgid/data/", "perturb_row", "perturb", "put", "each", "__init__")
"""Files and functions that work on tensors which have not been moved to the device: reading these is no wait."""


class Operations(TorchDispatchMode):
    """Counts dispatched operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """All operations."""
        return self.names.total()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names[str(func)] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def waits() -> Iterator[Counter[str]]:
    """Count reads of tensors by the host (`item`, `tolist`, `cpu`, `numpy`, `float`, `bool`, `int`), by the place that reads."""
    found: Counter[str] = Counter()
    names = ("item", "tolist", "cpu", "numpy", "__float__", "__bool__", "__int__")
    before = {name: getattr(torch.Tensor, name) for name in names}
    reading = False

    def counted(name: str) -> Any:
        def read(self: torch.Tensor, *arguments: Any, **named: Any) -> Any:
            nonlocal reading
            place = _place() if not reading else None
            outer, reading = reading, True
            try:
                return before[name](self, *arguments, **named)
            finally:
                reading = outer
                if place:
                    found[place] += 1

        return read

    for name in names:
        setattr(torch.Tensor, name, counted(name))
    try:
        yield found
    finally:
        for name, function in before.items():
            setattr(torch.Tensor, name, function)


def _place() -> str | None:
    """The line of vgid that reads a tensor; None for reads of tensors on the host, and for those outside of vgid."""
    frame = sys._getframe(2)
    ours = None
    while frame is not None:
        code = frame.f_code
        if any(each in code.co_filename or each == code.co_name for each in HOST):
            return None
        if ours is None and "/vgid/" in code.co_filename:
            ours = f"{Path(code.co_filename).name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ours


def default_rows(seed: int) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """The rows of one default step: 4 forget rows about 2 people, 16 retain rows about 4."""
    return tuple(rows_about(2, 2, seed)), tuple(rows_about(4, 4, seed + 1))


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Two steps on the same rows; the second one, with all pictures processed, is counted."""
    loaded = build(options.shape, options.image_tokens, "cpu", torch.float32)
    config = resolve()
    forget, retain = default_rows(1)
    model = attach_lora(loaded.model, AdapterConfig(), seed=0).eval()
    method = config.build_method()
    pictures = find_pictures(model, loaded.encoder, [*forget, *retain])
    context = Context(loaded.encoder, forget, retain, 0, torch.device("cpu"), packing=Style(config.training.pack), pictures=pictures)
    method.prepare(model, context)
    step = GradientStep(model, method, config.training, 0, lambda loss: loss.backward())
    step.step(StepBatch(0, forget, retain))
    kinds: Counter[str] = Counter()
    padded: list[tuple[torch.Tensor, torch.Tensor]] = []
    processed = 0
    processor = type(loaded.processor).__call__
    student = next(parameter for parameter in model.parameters() if parameter.requires_grad)

    def seen(_: Any, __: Any, named: dict[str, Any]) -> None:
        # While the adversary learns, the student is frozen.
        kind = "base_passes" if not torch.is_grad_enabled() else "student_passes" if student.requires_grad else "adversary_passes"
        kinds[kind] += 1
        padded.append((named["input_ids"], named["attention_mask"]))

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal processed
        processed += bool(named.get("images"))
        return processor(self, *arguments, **named)

    hook = base_of(model).register_forward_pre_hook(seen, with_kwargs=True)
    type(loaded.processor).__call__ = call
    try:
        with waits() as read:
            step.step(StepBatch(1, forget, retain))
    finally:
        hook.remove()
        type(loaded.processor).__call__ = processor
    with Operations() as operations:
        step.step(StepBatch(2, forget, retain))
    pad = loaded.processor.tokenizer.pad_token_id
    tokens = sum(ids.numel() for ids, _ in padded)
    real = sum(int((ids != pad).sum() if mask.ndim == 4 else mask.sum()) for ids, mask in padded)
    if options.operations:
        for name, count in operations.names.most_common(options.operations):
            print(f"{count:6} {name}")
    return {
        **{name: kinds[name] for name in ("student_passes", "base_passes", "adversary_passes")},
        "syncs": sum(read.values()),
        "sync_places": dict(read),
        "processor_calls": processed,
        "padding_share": 1 - real / tokens,
        "dispatched_ops": operations.count,
        "before": {**BEFORE, "dispatched_ops": options.before},
        "ratio": operations.count / options.before if options.before else None,
        "settings": {"shape": options.shape, "image_tokens": options.image_tokens, "forget_rows": len(forget), "retain_rows": len(retain)},
    }


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=("tiny", "smol"), default="tiny")
    parser.add_argument("--image-tokens", type=int, default=16)
    parser.add_argument("--before", type=int, default=0, help="operations of the step of commit d65c0a8, counted on the same rows")
    parser.add_argument("--operations", type=int, default=0, help="list the most frequent ones")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = run(options)
    print(json.dumps(result, indent=2))
    if options.json:
        write_result(options.json, result, "perf/passes.py", "perf/common.py", *STEP)


if __name__ == "__main__":
    main()
