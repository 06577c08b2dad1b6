"""Attackers whom the relearning adversary was not made for: `python perf/attackers.py DEMO ... --json found.json`.

DEMO is what `vgid demo --keep-data` left. Whoever has the weights fine-tunes them on all rows about half of the forgotten people, and asks
about the other half, by picture and by name. VGID's adversary is LoRA on all linear layers of the language model, trained by AdamW for ten
steps; these attackers have other ranks, layers, parts, optimizers, learning rates and numbers of steps. The retrained model, which never
met these people, is attacked in the same way: what it says is guessed. Results that are in the JSON are not computed again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

from sources import RUNS, digests, write_result

from vgid.attacks.base import sample_rows, split_people
from vgid.config import resolve
from vgid.data.example import Example
from vgid.demo.data import read_data
from vgid.evaluation.evaluate import evaluate
from vgid.models.loading import load_model
from vgid.progress import without_info_messages
from vgid.training.fit import fit

MODELS = ("merged", "retrained")
SPLITS = ("forget", "forget_text")
LORA = ("adapter.rank=8", "adapter.alpha=16", "training.learning_rate=1e-3")
"""An attacker like the adversary."""
ATTACKERS: Mapping[str, tuple[str, ...]] = {
    "LoRA, rank 8, 1e-3": LORA,
    "rank 2": (*LORA, "adapter.rank=2", "adapter.alpha=4"),
    "rank 64": (*LORA, "adapter.rank=64", "adapter.alpha=128"),
    "attention only": (*LORA, "adapter.targets=[q_proj,k_proj,v_proj,o_proj]"),
    "feed-forward only": (*LORA, "adapter.targets=[gate_proj,up_proj,down_proj]"),
    "vision tower and projector": (*LORA, "adapter.scope=[vision,projector]"),
    "all three parts": (*LORA, "adapter.scope=[language,projector,vision]"),
    "1e-4": (*LORA, "training.learning_rate=1e-4"),
    "3e-3": (*LORA, "training.learning_rate=3e-3"),
    "all weights, 1e-4": ("adapter=null", "training.learning_rate=1e-4"),
    "all weights, 1e-3": ("adapter=null", "training.learning_rate=1e-3"),
    "all weights, Muon, 1e-3": ("adapter=null", "training.learning_rate=1e-3", "training.optimizer=muon"),
}
COMMON = (
    "training.schedule=constant",
    "training.warmup_steps=5",
    "training.retain_batch=8",
    "training.precision=fp32",
    "validation.every=0",
)
STEPS = (20, 100, 300)
ASKED = 96
"""Questions by picture, and as many by name, at most."""


def halves(folder: Path, seed: int) -> tuple[list[Example], dict[str, list[Example]]]:
    """All rows about half of the forgotten people, and questions about the other half, by picture and by name."""
    data = read_data(folder / "data")
    taught, others = split_people(data.forget, 0.5, seed)
    people = {row.subject for row in others}
    asked = {name: [row for row in data.splits[name] if row.subject in people] for name in SPLITS}
    return taught, {name: sample_rows(rows, ASKED, seed) for name, rows in asked.items()}


def attack(folder: Path, model: str, changes: tuple[str, ...], steps: int, seed: int) -> dict[str, float]:
    """Fine-tune a model, and ask it.

    Args:
        folder: of the demo.
        model: its folder there.
        changes: settings of the attacker.
        steps: steps of fine-tuning.
        seed: of the choice of people, rows and batches.

    Returns:
        Share of right answers by split, in [0, 1].
    """
    taught, asked = halves(folder, seed)
    Random(f"attackers/{seed}").shuffle(taught)
    config = resolve(None, [*COMMON, *changes, f"training.steps={steps}", f"seed={seed}"], method="finetune")
    with without_info_messages():
        loaded = fit(load_model(folder / model), [], taught, config).loaded
    return {name: each.accuracy for name, each in evaluate(loaded, asked).items()}


Results = dict[str, dict[str, dict[str, dict[str, float]]]]


def table(results: Results) -> Iterator[str]:
    """What comes back by picture and by name, in percent, and in brackets what the retrained model says; the most of all demos."""
    yield "| attacker | " + " | ".join(f"{steps} steps" for steps in STEPS) + " |"
    yield "|---" + "|---:" * len(STEPS) + "|"
    for name in ATTACKERS:
        cells = []
        for steps in STEPS:
            found = [demo[f"{name}, {steps} steps"] for demo in results.values() if f"{name}, {steps} steps" in demo]
            most = {(model, split): max((each[model][split] for each in found), default=0.0) for model in MODELS for split in SPLITS}
            cells.append(", ".join(f"{100 * most['merged', split]:.1f} ({100 * most['retrained', split]:.1f})" for split in SPLITS))
        yield f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demos", type=Path, nargs="+", metavar="DEMO")
    parser.add_argument("--attacker", action="append", choices=tuple(ATTACKERS), help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, required=True, help="results; what is in it is not computed again")
    options = parser.parse_args()
    results: Results = {}
    if options.json.is_file():
        before = json.loads(options.json.read_text("utf-8"))
        if before["measured"]["sources"] != digests(RUNS) or before["seed"] != options.seed:
            raise SystemExit(f"{options.json} was measured with other code or another seed; name another file")
        results = before["results"]
    for folder in options.demos:
        found = results.setdefault(folder.name, {})
        for name in options.attacker or ATTACKERS:
            for steps in STEPS:
                key = f"{name}, {steps} steps"
                if key not in found:
                    found[key] = {model: attack(folder, model, ATTACKERS[name], steps, options.seed) for model in MODELS}
                    write_result(options.json, {"seed": options.seed, "results": results}, *RUNS)
                    print(f"{folder.name}: {key}: {found[key]}", flush=True)
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
