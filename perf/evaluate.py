"""Answers a second: one question per generate call, and as `vgid evaluate` asks: `python perf/evaluate.py --json evaluate.json`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from common import build, device_name, measure, rows_about
from sources import ANSWERS, write_result

from vgid.evaluation.generation import generate


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Both ways, one after the other, on the same model and questions."""
    device = options.device
    loaded = build(options.shape, options.image_tokens, device, torch.bfloat16 if options.shape == "llava-7b" else torch.float32)
    rows = rows_about(options.images, options.questions, seed=1)
    answers: dict[str, list[str]] = {}

    def single() -> None:
        answers["single"] = [generate(loaded, [row], max_new_tokens=options.new_tokens)[0] for row in rows]

    def ours() -> None:
        answers["ours"] = generate(loaded, rows, max_new_tokens=options.new_tokens)

    generate(loaded, rows[:2], max_new_tokens=2)  # what only the first call has to do
    stages = {"single": measure(single, options.repetitions, device), "ours": measure(ours, options.repetitions, device)}
    return {
        **{name: {"questions_per_s": len(rows) / stage.median, "peak_mb": stage.peak_mb} for name, stage in stages.items()},
        "speedup": stages["single"].median / stages["ours"].median,
        "same_answers": answers["single"] == answers["ours"],
        "device": device_name(device),
        "settings": {**vars(options), "json": None, "torch": torch.__version__},
    }


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=("tiny", "smol", "llava-7b"), default="smol")
    parser.add_argument("--image-tokens", type=int, default=144)
    parser.add_argument("--questions", type=int, default=5, help="about each picture")
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--new-tokens", type=int, default=48, help="in an answer; random weights seldom stop before")
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = run(options)
    for name in ("single", "ours"):
        print(f"{name:<7} {result[name]['questions_per_s']:8.2f} questions a second  {result[name]['peak_mb']:8.0f} MB")
    print(f"{result['speedup']:.1f} times as fast; the answers are {'the same' if result['same_answers'] else 'NOT THE SAME'}")
    if options.json:
        write_result(options.json, result, "perf/evaluate.py", "perf/common.py", *ANSWERS)


if __name__ == "__main__":
    main()
