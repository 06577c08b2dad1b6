"""Questions a second: asked in batches, as `vgid evaluate` does, against one question a `generate` call; prints a table and writes JSON.

    python benchmarks/evaluation_throughput.py [--questions 128] [--batch 64] [--model FOLDER] [--out throughput.json]

Both ways give the same answers; where they do not (rounding, two tokens equally likely), the share that agrees is in the table.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from vgid.artifacts import write_json_atomic
from vgid.benchmarks.people import People
from vgid.evaluation.generation import generate
from vgid.evaluation.scoring import score
from vgid.models.loading import load_model
from vgid.models.tiny import tiny_path
from vgid.results import versions


def main() -> None:
    """Time both ways on the fictional people's questions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=Path("throughput.json"))
    given = parser.parse_args()
    loaded = load_model(given.model or tiny_path())
    examples = [item.example for item in People(None, People.Protocol(people=12, forget=4)).items()]
    examples = examples[:: max(1, len(examples) // given.questions)][: given.questions]
    generate(loaded, examples[:2], max_new_tokens=2)
    loaded.encoder.prompts(examples)  # pictures are processed once, before either way
    results = {}
    for name, batch in (("one at a time", 1), ("in batches", given.batch)):
        started = time.perf_counter()
        said = generate(loaded, examples, max_new_tokens=given.tokens, batch_size=batch)
        asked = time.perf_counter()
        score(loaded, examples, batch)
        results[name] = {"generate": asked - started, "score": time.perf_counter() - asked, "said": said}
    one, many = results["one at a time"], results["in batches"]
    agree = sum(a == b for a, b in zip(one.pop("said"), many.pop("said"), strict=True)) / len(examples)
    print(f"{len(examples)} questions, up to {given.tokens} tokens, batches of {given.batch}; {agree:.1%} of the answers agree")
    for part in ("generate", "score"):
        print(f"{part:<10} {one[part]:8.2f} s {many[part]:8.2f} s  {one[part] / many[part]:5.1f} times as fast")
    write_json_atomic(
        given.out, {"questions": len(examples), "batch": given.batch, "agree": agree, "seconds": results, "versions": versions()}
    )


if __name__ == "__main__":
    main()
