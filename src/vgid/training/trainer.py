"""Training: one subclass of `transformers.Trainer` that feeds a method its forget and retain rows.

Which rows a step sees is a function of (seed, step): either set is gone through in a new order each epoch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from vgid.config import TrainingConfig
from vgid.data.example import Example
from vgid.data.packing import groups
from vgid.errors import RunError
from vgid.methods.base import Method, StepBatch
from vgid.training.optimizers import build_optimizer
from vgid.training.seeds import derive_seed

Progress = Callable[[int, int], None]
"""Told (steps done, steps in all)."""
Curves = dict[str, list[tuple[int, float]]]


class Rows:
    """Goes through examples in a new order each epoch; what a step sees depends on (seed, step) only.

    Up to `pack` questions about one picture follow each other; which, and where, is drawn anew each epoch.
    """

    def __init__(self, examples: Sequence[Example], per_step: int, seed: int, pack: int = 1) -> None:
        self.examples, self.per_step, self.seed, self.pack = examples, per_step, seed, pack
        self._order: tuple[int, list[int]] = (-1, [])

    def at(self, step: int) -> tuple[Example, ...]:
        """The rows of one step."""
        if not self.examples or not self.per_step:
            return ()
        return tuple(self._nth(n) for n in range(step * self.per_step, (step + 1) * self.per_step))

    def _nth(self, n: int) -> Example:
        epoch, place = divmod(n, len(self.examples))
        if self._order[0] != epoch:
            self._order = (epoch, self._shuffled(Random(derive_seed(self.seed, epoch))))
        return self.examples[self._order[1][place]]

    def _shuffled(self, rng: Random) -> list[int]:
        order = list(range(len(self.examples)))
        rng.shuffle(order)
        if self.pack == 1:
            return order
        together = [[order[k] for k in places] for places in groups([self.examples[n] for n in order], self.pack)]
        rng.shuffle(together)
        return [n for places in together for n in places]


class _Steps(Dataset[int]):
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, step: int) -> int:
        return step


class UnlearnTrainer(Trainer):
    """Runs a method: each item of its data set is the number of a step, from which the rows follow."""

    def __init__(
        self, model: Any, method: Method[Any], forget: Rows, retain: Rows, config: TrainingConfig, steps: int, seed: int, **kwargs: Any
    ) -> None:
        self.method, self.forget, self.retain = method, forget, retain
        self.curves: Curves = {}
        arguments = TrainingArguments(
            output_dir=kwargs.pop("output_dir"),
            per_device_train_batch_size=1,
            max_steps=steps,
            learning_rate=config.learning_rate,
            lr_scheduler_type="constant_with_warmup" if config.schedule == "constant" else config.schedule,
            warmup_steps=config.warmup_steps,
            max_grad_norm=config.max_grad_norm,
            weight_decay=config.weight_decay,
            bf16=config.precision == "bf16",
            seed=seed,
            use_cpu=next(model.parameters()).device.type == "cpu",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            save_strategy="no",
            logging_strategy="steps" if config.report_to else "no",
            logging_steps=1,
            report_to=list(config.report_to),
            run_name="vgid",
            disable_tqdm=True,
        )
        optimizer = build_optimizer(model, config)
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=_Steps(steps),
            data_collator=self._rows_of,
            optimizers=(optimizer, None),
            **kwargs,
        )
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)

    def _rows_of(self, steps: list[int]) -> dict[str, Any]:
        (step,) = steps
        return {"batch": _Opaque(StepBatch(step, self.forget.at(step), self.retain.at(step)))}

    def _get_train_sampler(self, *_: Any, **__: Any) -> Sampler[int]:
        return SequentialSampler(self.train_dataset)

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **_: Any) -> Tensor:
        """The method's loss; a loss that is not finite stops the run before it can touch the weights."""
        batch: StepBatch = inputs["batch"].value
        out = self.method.loss(model, batch)
        if not torch.isfinite(out.total):
            ids = ", ".join(example.id for example in (*batch.forget, *batch.retain))
            raise RunError(
                f"the loss is {out.total.item()} at step {batch.step + 1}",
                expected="a finite loss",
                got=f"rows {ids}",
                fix="lower training.learning_rate, or look at these rows",
            )
        for name, part in out.parts.items():
            self.curves.setdefault(name, []).append((batch.step + 1, float(part)))
        return out.total

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Tell trackers the parts of the loss too."""
        super().log(logs | {f"loss_{name}": curve[-1][1] for name, curve in self.curves.items()}, *args, **kwargs)


class _Opaque:
    """Carries rows through the data loader, which would otherwise take tuples apart."""

    def __init__(self, value: StepBatch) -> None:
        self.value = value


class _Report(TrainerCallback):
    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress(state.global_step, state.max_steps)


def train(
    model: Any,
    method: Method[Any],
    forget: Sequence[Example],
    retain: Sequence[Example],
    config: TrainingConfig,
    *,
    seed: int,
    progress: Progress | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Curves:
    """Train `model` in place by `method`, which has been prepared; gives the curve of every part of the loss.

    Raises:
        RunError: when the loss stops being finite.
    """
    steps = count_steps(config, len(forget), len(retain))
    retain_rows = config.retain_rows if forget else (config.retain_batch or config.forget_batch)
    with tempfile.TemporaryDirectory(prefix="vgid-") as folder:
        trainer = UnlearnTrainer(
            model,
            method,
            Rows(forget, config.forget_batch, derive_seed(seed, "forget"), config.pack),
            Rows(retain, retain_rows, derive_seed(seed, "retain"), config.pack),
            config,
            steps,
            seed,
            output_dir=folder,
            callbacks=[*callbacks, *([_Report(progress)] if progress else [])],
        )
        trainer.train()
    return trainer.curves


def count_steps(config: TrainingConfig, forget: int, retain: int) -> int:
    """Optimizer steps of a run: given, or so many epochs over the forget set (the retain set where nothing is forgotten)."""
    if config.steps is not None:
        return config.steps
    rows, batch = (forget, config.forget_batch) if forget else (retain, config.retain_batch or config.forget_batch)
    return max(1, round(config.epochs * rows / batch))
