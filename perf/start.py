"""What a run with thin retain data asks of the machine before its first step: `python perf/start.py --json FILE`.

The embedded base forgets one of the people that it knows, and has few rows to keep, or none: replay asks it for names, pictures and answers
first (`vgid.data.replay`). Counts, not times, as in `passes.py`: tokens of the decoder's passes decide at 7B, passes where they are short.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from passes import Operations
from sources import STEP, write_result

from vgid.config import resolve
from vgid.data.example import Example
from vgid.methods.base import StepBatch
from vgid.models.loading import load_model
from vgid.models.structure import inspect_model
from vgid.seeds import derive_seed
from vgid.synthetic.people import Camera, World
from vgid.synthetic.splits import training_rows
from vgid.synthetic.tiny import tiny_path
from vgid.training.fit import fit
from vgid.training.gradient_step import GradientStep

PARTS: Mapping[str, str] = {
    "probe_rows": "probes are chosen",
    "imagined_pictures": "pictures are imagined",
    "sampled_names": "names are sampled",
    "_different": "altered pictures are compared",
    "by_knowledge": "names are tried",
    "replay_rows": "imagined pictures are tried",
    "narrow": "narrow updates",
    "answered_together": "answers are given",
}
"""Function to what the base is asked for in it; the innermost counts, but for `probe_rows`."""
COUNTED = ("passes", "tokens", "tokens_with_gradients", "pictures")
"""Passes of the decoder, its tokens with padding, those of them that are differentiated, and pictures in the vision tower."""


class _BeforeTheFirstStepError(Exception):
    """Ends the run."""


def _part() -> str:
    frame, names = sys._getframe(2), []
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back  # type: ignore[assignment]
    innermost = next((name for name in names if name in PARTS), "")
    return PARTS["probe_rows" if "probe_rows" in names else innermost] if innermost else "the rest"


def rows(retain: int, seed: int) -> tuple[list[Example], list[Example]]:
    """All rows about one person that the embedded base knows, and some about the others."""
    her, *others = World(seed, people=2, forget=1).base_training_people
    kept = list(training_rows(Camera(96), others, seed))
    order = sorted(kept, key=lambda row: derive_seed(seed, row.id))
    return list(training_rows(Camera(96), [her], seed)), order[:retain]


def counted(work: Callable[[], Any], base: Any) -> dict[str, Counter[str]]:
    """Run something, and count what the decoder and the vision tower do in it, by part."""
    found: dict[str, Counter[str]] = {}
    structure = inspect_model(base)

    def decoder(_: Any, __: Any, named: Mapping[str, Any]) -> None:
        count = found.setdefault(_part(), Counter())
        tokens = named["inputs_embeds"].shape[:2].numel()
        count["passes"] += 1
        count["tokens"] += tokens
        count["tokens_with_gradients"] += tokens if torch.is_grad_enabled() else 0

    def tower(_: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        found.setdefault(_part(), Counter())["pictures"] += len(arguments[0] if arguments else named["pixel_values"])

    hooks = [base.get_submodule(structure.language[0]).register_forward_pre_hook(decoder, with_kwargs=True)]
    hooks.append(base.get_submodule(structure.vision[0]).register_forward_pre_hook(tower, with_kwargs=True))
    try:
        work()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def run(options: argparse.Namespace) -> dict[str, Any]:
    """A run up to its first step."""
    forget, retain = rows(options.retain, 0)
    config = resolve(None, [f"training.steps={options.steps}"])
    loaded = load_model(tiny_path(), device="cpu")
    step = GradientStep.step

    def stop(self: GradientStep, batch: StepBatch, following: StepBatch | None = None) -> Any:
        raise _BeforeTheFirstStepError

    def work() -> None:
        try:
            fit(loaded, forget, retain, config)
        except _BeforeTheFirstStepError:
            return
        raise RuntimeError("there was no first step")

    GradientStep.step = stop  # type: ignore[method-assign]
    try:
        with Operations() as operations:
            found = counted(work, loaded.model)
    finally:
        GradientStep.step = step  # type: ignore[method-assign]
    return {
        **{name: sum(count[name] for count in found.values()) for name in COUNTED},
        "dispatched_ops": operations.count,
        "parts": {part: {name: count[name] for name in COUNTED} for part, count in sorted(found.items())},
        "settings": {"steps": options.steps, "forget_rows": len(forget), "retain_rows": len(retain)},
    }


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="steps of the run, which decide how much is asked")
    parser.add_argument("--retain", type=int, default=50, help="rows that the user gives to keep")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = run(options)
    print(json.dumps(result, indent=2))
    if options.json:
        sources = ("src/vgid/data/replay.py", "src/vgid/models/inversion.py", "src/vgid/evaluation", "src/vgid/training/fit.py")
        write_result(options.json, result, "perf/start.py", *STEP, *sources)


if __name__ == "__main__":
    main()
