"""A step of VGID, the released way and ours, in one process on the same data: `python perf/step.py --json step.json`.

The released way is written here as plainly as it was published: a deep copy of the model as teacher, one question a row, logits and
KL at every position, and an optimizer step for forget and retain rows each. `ours` is what `vgid unlearn` runs, with every setting of the
method pinned to the released one; `default` is the same with the method's present defaults.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import Stage, build, device_name, measure, peak_flops, rows_about
from sources import STEP, write_result
from torch import Tensor
from torch.nn import functional as F

from vgid.data.example import Example
from vgid.data.packing import Style
from vgid.methods.base import Context, StepBatch
from vgid.methods.vgid.method import VGID, VGIDConfig
from vgid.models.adapters import attach_lora, cast_by_autocast
from vgid.models.forward import all_logits
from vgid.models.loading import LoadedModel
from vgid.models.memory_saving import compiled
from vgid.perturbation import NoiseConfig
from vgid.settings import AdapterConfig

Rows = list[Example]


def steps_of(forget: Rows, retain: Rows, size: int) -> list[StepBatch]:
    """The rows of each step of an epoch."""
    return [
        StepBatch(number, tuple(forget[start : start + size]), tuple(retain[start : start + size]))
        for number, start in enumerate(range(0, len(forget), size))
    ]


class Released:
    """The published loop."""

    def __init__(self, loaded: LoadedModel, precision: torch.dtype) -> None:
        self.teacher = copy.deepcopy(loaded.model).eval().requires_grad_(False)
        self.model = attach_lora(loaded.model, AdapterConfig(init="gaussian"), seed=0)
        self.encoder, self.device, self.precision = loaded.encoder, loaded.model.device, precision
        self.optimizer = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], lr=5e-4)

    def epoch(self, steps: list[StepBatch]) -> None:
        """Forget rows, a step, retain rows, a step."""
        self.model.train()
        for batch in steps:
            self._step(batch.forget, noisy=True)
            self._step(batch.retain, noisy=False)

    def _step(self, rows: tuple[Example, ...], *, noisy: bool) -> None:
        batch = self.encoder.batch(rows).to(self.device)
        seen = dict(batch.model_inputs)
        if noisy:
            seen["pixel_values"] = torch.rand_like(seen["pixel_values"])
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            with torch.no_grad():
                teacher = self.teacher(**seen, use_cache=False).logits
            student = self.model(**batch.model_inputs, use_cache=False).logits
            loss = F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="batchmean")
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


PINNED = VGIDConfig(
    name="vgid",
    noise=NoiseConfig(kind="uniform", space="normalised"),
    redraw=False,
    instruction=None,
    alpha=1.0,
    beta=1.0,
    retain_loss="kl",
    mask_names=False,
    guess_penalty=0.0,
    hidden_state_weight=0.0,
    adversary=None,
    answers=("recorded",),
    temperature=1.0,
    direction="forward",
    self_distilled=0,
    augment=0,
)
"""The released objective at answer positions: one KL term on each side, nothing of ours."""


class Ours:
    """What a run of `vgid unlearn` does in a step."""

    def __init__(
        self, loaded: LoadedModel, forget: Rows, retain: Rows, questions: int, precision: torch.dtype, config: VGIDConfig = PINNED
    ) -> None:
        self.model = attach_lora(loaded.model, AdapterConfig(init="gaussian"), seed=0)
        self.precision, self.device = precision, loaded.model.device
        self.method = VGID(config)
        packing = Style(questions) if questions > 1 else None
        self.method.prepare(self.model, Context(loaded.encoder, forget, retain, 0, self.device, packing=packing))
        fused = self.device.type == "cuda"
        self.optimizer = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], lr=5e-4, fused=fused)

    def epoch(self, steps: list[StepBatch]) -> None:
        """Forget and retain rows together, pass by pass, one optimizer step for both."""
        self.model.train()
        for batch in steps:
            # A context for each step: casts that are kept longer would hide that the adapter changes.
            with self._autocast(), cast_by_autocast(self.model, self.precision != torch.float32):
                for out in self.method.passes(self.model, batch):
                    out.total.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()

    def loss(self, batch: StepBatch) -> Tensor:
        """The loss of some rows."""
        with self._autocast():
            return self.method.loss(self.model, batch).total

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)


def plain_loss(ours: Ours, batch: StepBatch) -> float:
    """The same loss, every row by itself, from logits at all positions."""
    method, total = ours.method, 0.0
    for rows, noisy in ((batch.forget, True), (batch.retain, False)):
        for row in rows:
            encoded = method.context.encoder.batch([row]).to(ours.device)
            seen = method.teacher_batch((row,), 0) if noisy else encoded
            with torch.no_grad():
                with ours.model.disable_adapter():
                    p = all_logits(ours.model, seen)[seen.answers.positions].float().log_softmax(-1)
                q = all_logits(ours.model, encoded)[encoded.answers.positions].float().log_softmax(-1)
            total += float((p.exp() * (p - q)).sum(-1).mean()) / len(rows)
    return total


def faster_precision(device: str, loaded: LoadedModel, rows: Rows, questions: int) -> torch.dtype:
    """bf16 where it is faster, as on GPUs and recent CPUs."""
    if device != "cpu":
        return torch.bfloat16
    steps, seconds = steps_of(rows[:questions], rows[:questions], questions), {}
    for precision in (torch.float32, torch.bfloat16):
        ours = Ours(copy.deepcopy(loaded), rows, rows, questions, precision)
        seconds[precision] = min(measure(lambda ours=ours: ours.epoch(steps), 2, device).seconds)
    return min(seconds, key=lambda precision: seconds[precision])


def run(options: argparse.Namespace, tell: Callable[..., None] | None = None) -> dict[str, Any]:
    """Both ways, one after the other; each is gone before the next begins. `tell` gets figures as they are found."""
    device, q = options.device, options.questions
    stored = torch.bfloat16 if options.shape == "llava-7b" else torch.float32
    forget, retain = rows_about(options.images, q, seed=1), rows_about(options.images, q, seed=2)
    steps = steps_of(forget, retain, q)

    def fresh(dtype: torch.dtype = stored) -> LoadedModel:
        return build(options.shape, options.image_tokens, device, dtype)

    def released() -> Stage:
        way = Released(fresh(), torch.bfloat16 if device != "cpu" else torch.float32)
        return measure(lambda: way.epoch(steps), options.epochs, device)

    def ours(precision: torch.dtype, config: VGIDConfig = PINNED, *, compiling: bool = False) -> Stage:
        way = Ours(fresh(), forget, retain, q, precision, config)
        with compiled(way.model, compiling):  # the first epoch takes the compiler's time
            stage = measure(lambda: way.epoch(steps), options.epochs, device)
        counts.update(flops=operations(way, steps), tokens=sum(tokens_of(way, row) for row in (*forget, *retain)))
        return stage

    figures: dict[str, Any] = {}
    counts: dict[str, float] = {}

    def add(**found: Any) -> None:
        figures.update(found)
        if tell:
            tell(**found)

    def measured(stage: Stage) -> dict[str, Any]:
        tokens = {"tokens_per_s": counts["tokens"] / stage.median} if counts else {}
        return {"epoch_s": stage.median, "peak_mb": stage.peak_mb, "epochs_s": stage.seconds, **tokens}

    slow = released()
    add(released=measured(slow))
    precision = faster_precision(device, fresh(), retain, q)
    fast = ours(precision)
    share = counts["flops"] / fast.median / peak_flops(device, precision)
    add(ours={**measured(fast), "flops_share": share}, speedup=slow.median / fast.median, memory_ratio=fast.peak_mb / slow.peak_mb)
    default = ours(precision, VGIDConfig(name="vgid"))
    add(default=measured(default), default_over_released=default.median / slow.median)
    exact = Ours(fresh(torch.float32), forget, retain, q, torch.float32)
    exact.model.eval()
    add(loss_max_diff=max(abs(float(exact.loss(batch).detach()) - plain_loss(exact, batch)) for batch in steps[:2]))
    del exact
    for name, config in (("ours", PINNED), ("default", VGIDConfig(name="vgid"))) if options.compile else ():
        stage = ours(precision, config, compiling=True)
        add(**{f"{name}_compiled": {**measured(stage), "over_released": stage.median / slow.median}})
    return {
        **figures,
        "device": device_name(device),
        "settings": {
            **vars(options),
            "json": None,
            "pinned": PINNED.model_dump(mode="json"),
            "precision": str(precision).removeprefix("torch."),
            "torch": torch.__version__,
        },
    }


def tokens_of(ours: Ours, row: Example) -> int:
    """Tokens of a row by itself."""
    return len(ours.method.context.encoder.row(row).text["input_ids"])


def operations(ours: Ours, steps: list[StepBatch]) -> float:
    """Of the student in an epoch: forward, and backward through frozen weights, 2 each for a weight and a token it reads."""
    batches = [ours.method.context.batch(rows) for step in steps for rows in (step.forget, step.retain)]
    read = sum(int((batch.packing.segments >= 0).sum()) if batch.packing else batch.model_inputs["input_ids"].numel() for batch in batches)
    weights = sum(p.numel() for name, p in ours.model.named_parameters() if "language_model.layers" in name)
    head = ours.model.get_output_embeddings().weight.numel()
    return 4.0 * (weights * read + head * sum(len(batch.answers.targets) for batch in batches))


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=("tiny", "smol", "llava-7b"), default="smol")
    parser.add_argument("--image-tokens", type=int, default=144)
    parser.add_argument("--questions", type=int, default=5, help="about each picture")
    parser.add_argument("--images", type=int, default=2, help="in the forget set, and as many in the retain set")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="our layers; by default on a GPU, as in runs of some steps"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.compile = options.device != "cpu" if options.compile is None else options.compile
    result = run(options)
    for name in ("released", "ours", "default", "ours_compiled", "default_compiled"):
        if name in result:
            print(f"{name:<16} {result[name]['epoch_s']:8.2f} s an epoch  {result[name]['peak_mb']:8.0f} MB")
    print(
        f"{result['speedup']:.1f} times as fast, {result['memory_ratio']:.2f} of the memory, losses differ by {result['loss_max_diff']:.1e}"
    )
    if options.json:
        write_result(options.json, result, "perf/step.py", "perf/common.py", *STEP)


if __name__ == "__main__":
    main()
