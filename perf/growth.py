"""What grows with what: `python perf/growth.py --json growth.json`.

Time of an epoch with the number of forget answers; time of a step, and memory, with the size of the retain set on disk; memory with
the number of pictures in it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from common import Stage, build, device_name, measure, rows_about
from sources import STEP, write_result
from step import Ours, steps_of

from vgid.data.example import Example, ImageRef
from vgid.data.sources import load_examples
from vgid.data.writing import write_parquet

DRAWN = 500
"""Retain rows that a run of these benchmarks looks at."""


def epochs(options: argparse.Namespace) -> list[dict[str, float]]:
    """Seconds of an epoch over 1, 4 and 16 times as many forget answers."""
    loaded = build(options.shape, options.image_tokens, "cpu", torch.float32)
    rows = rows_about(16 * options.images, options.questions, seed=1)
    ours = Ours(loaded, rows, rows, options.questions, torch.float32)
    size = options.images * options.questions
    ours.epoch(steps_of(rows[: options.questions], rows[: options.questions], options.questions))  # the first step also prepares
    out = []
    for times in (1, 4, 16):
        part = rows[: times * size]
        ours.method.prepare(ours.model, ours.method.context)  # nothing kept from the epoch before
        stage = measure(lambda part=part: ours.epoch(steps_of(part, part, options.questions)), 1, "cpu")
        out.append({"answers": len(part), "epoch_s": stage.median, "s_per_answer": stage.median / len(part)})
    return out


def reading(folder: Path, counts: tuple[int, ...], options: argparse.Namespace) -> list[dict[str, float]]:
    """Seconds to read a retain set of so many rows, each with a picture of its own, of a step on what was drawn, and memory."""
    read: dict[int, tuple[Stage, float, list[Example]]] = {}
    for count in counts:  # before there is any model, which would take more memory than all of them
        file = folder / f"retain-{count}.parquet"
        write_parquet(file, some_rows(count))
        drawn: list[Example] = []
        stage = measure(lambda file=file, drawn=drawn: drawn.extend(load_examples(file, at_most=DRAWN)), 1, "cpu")
        read[count] = stage, file.stat().st_size / 2**20, drawn
        file.unlink()
    out = []
    forget = rows_about(1, options.questions, seed=1)
    for count, (stage, size, drawn) in read.items():
        ours = Ours(build(options.shape, options.image_tokens, "cpu", torch.float32), forget, drawn, 1, torch.float32)
        steps = steps_of(forget, drawn[: options.questions], options.questions)
        ours.epoch(steps)
        step = measure(lambda ours=ours, steps=steps: ours.epoch(steps), 5, "cpu")
        out.append({"rows": count, "file_mb": size, "read_s": stage.median, "read_peak_mb": stage.peak_mb, "step_s": step.median})
    return out


def some_rows(count: int) -> Iterator[Example]:
    """Rows with a picture of their own each: one portrait, and a number behind it that decoders pass over."""
    portrait = rows_about(1, 1, seed=1)[0].images[0].read()
    for number in range(count):
        picture = ImageRef(data=portrait + number.to_bytes(4, "big"))
        yield Example(f"r{number}", f"What is number {number}?", "A portrait.", (picture,))


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=("tiny", "smol"), default="tiny")
    parser.add_argument("--image-tokens", type=int, default=16)
    parser.add_argument("--questions", type=int, default=5, help="about each picture")
    parser.add_argument("--images", type=int, default=4, help="pictures of the smallest forget set")
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="of the retain sets on disk")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result: dict[str, Any] = {"retain": reading(Path(folder), tuple(options.rows), options), "forget": epochs(options)}
    result |= {"device": device_name("cpu"), "settings": {**vars(options), "json": None, "torch": torch.__version__}}
    for row in result["forget"]:
        print(f"{row['answers']:6} forget answers: {row['epoch_s']:7.2f} s an epoch, {1000 * row['s_per_answer']:6.1f} ms each")
    for row in result["retain"]:
        print(
            f"{row['rows']:6} retain rows ({row['file_mb']:6.1f} MB): read in {row['read_s']:6.2f} s, {row['read_peak_mb']:6.0f} MB; "
            f"a step takes {row['step_s']:5.2f} s"
        )
    if options.json:
        write_result(options.json, result, "perf/growth.py", "perf/common.py", "src/vgid/data", *STEP)


if __name__ == "__main__":
    main()
