"""Training: one subclass of `transformers.Trainer` that feeds a method its forget and retain rows.

Which rows a step sees is a function of (seed, step): either set is gone through in a new order each epoch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from vgid.curves import Curves, trace
from vgid.data.example import Example
from vgid.data.packing import groups
from vgid.data.replay import LEAST_SHARE, replay_kind
from vgid.methods.base import Method, StepBatch
from vgid.models.adapters import cast_by_autocast
from vgid.progress import Bar, Progress
from vgid.seeds import derive_seed
from vgid.settings import TrainingConfig
from vgid.training.checkpoint_callback import CheckpointCallback
from vgid.training.checkpointing import Checkpoints
from vgid.training.gradient_step import GradientStep
from vgid.training.optimizers import build_optimizer
from vgid.training.signals import StopRequest, listening
from vgid.training.state import curves_of, put_result
from vgid.training.validation import EarlyStop, RecallCurves


class Rows:
    """Goes through examples in a new order each epoch; what a step sees depends on (seed, step) only.

    Up to `pack` questions about one picture follow each other; which ones, and where, is drawn anew each epoch.
    """

    def __init__(self, examples: Sequence[Example], per_step: int, seed: int, pack: int = 1) -> None:
        self.examples, self.per_step, self.seed, self.pack = examples, per_step, seed, pack
        self._order: tuple[int, list[int]] = (-1, [])

    def at(self, step: int) -> tuple[Example, ...]:
        """The rows of one step."""
        return self.between(step * self.per_step, (step + 1) * self.per_step) if self.examples else ()

    def between(self, first: int, end: int) -> tuple[Example, ...]:
        """Rows by their number since the beginning, over all epochs."""
        return tuple(self._nth(n) for n in range(first, end))

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


class Mixture:
    """Rows that the user gave, and kinds of replay rows (`vgid.data.replay`): each kind has its share in every stretch of steps.

    In proportion to their number alone, a few hundred rows about what is seen on a picture would hardly be met beside thousands of others.
    So each kind of replay rows gets `LEAST_SHARE` of a step, and rows that the user gave `LEAST_GIVEN`; the rest is shared out in
    proportion. Self-distilled rows are of the kind `seen`. With rows that the user gave alone it is `Rows`.
    """

    LEAST_GIVEN = 1 / 4

    def __init__(self, examples: Sequence[Example], per_step: int, seed: int, pack: int = 1) -> None:
        kinds: dict[str, list[Example]] = {}
        for example in examples:
            kinds.setdefault(replay_kind(example), []).append(example)
        self.per_step = per_step
        self._parts = [Rows(rows, per_step, derive_seed(seed, kind) if kind else seed, pack) for kind, rows in kinds.items()]
        least = [LEAST_SHARE if kind else self.LEAST_GIVEN for kind in kinds]
        self._shares = [low + (1 - sum(least)) * len(part.examples) / len(examples) for low, part in zip(least, self._parts, strict=True)]
        self._starts = [[0] * len(self._parts)]

    def at(self, step: int) -> tuple[Example, ...]:
        """The rows of one step."""
        if not self._parts:
            return ()
        while len(self._starts) <= step + 1:
            self._starts.append(self._next())
        return tuple(
            row
            for part, first, end in zip(self._parts, self._starts[step], self._starts[step + 1], strict=True)
            for row in part.between(first, end)
        )

    def _next(self) -> list[int]:
        """Rows of each kind that all steps up to the next one have had: each row goes to the kind that is furthest behind."""
        had = list(self._starts[-1])
        for _ in range(self.per_step):
            behind = [share * (sum(had) + 1) - count for share, count in zip(self._shares, had, strict=True)]
            had[behind.index(max(behind))] += 1
        return had


class _Steps(Dataset[int]):
    def __init__(self, steps: range) -> None:
        self.steps = steps

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, place: int) -> int:
        return self.steps[place]


class UnlearnTrainer(Trainer):
    """Runs a method: each item of its data set is the number of a step, from which the rows follow.

    Every process sees every step and takes its share of the rows (`GradientStep`), so the model need not be wrapped.
    """

    def __init__(
        self,
        model: Any,
        method: Method[Any],
        forget: Rows,
        retain: Mixture,
        config: TrainingConfig,
        steps: range,
        seed: int,
        validation: EarlyStop | RecallCurves | None = None,
        **kwargs: Any,
    ) -> None:
        self.forget, self.retain, self.config, self.measured = forget, retain, config, validation
        self.curves: Curves = {}
        # With one side alone there is nothing to take turns with.
        self.in_turn = method.alternates and bool(forget.examples) and bool(retain.at(0))
        arguments = TrainingArguments(
            output_dir=kwargs.pop("output_dir"),
            per_device_train_batch_size=1,
            max_steps=steps.stop,
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
        if arguments.n_gpu > 1:
            # transformers would wrap the model in DataParallel, which splits batches by their first dimension and knows nothing of packed
            # rows: one device for each process; more devices need a launcher.
            arguments._n_gpu = 1
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=_Steps(steps),
            data_collator=self._rows_of,
            **kwargs,
        )
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        if not self.is_deepspeed_enabled:
            # accelerate's way to say: mixed precision, but no wrapping.
            self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)
        backward = self.accelerator.backward
        self.gradient_step = GradientStep(model, method, config, seed, backward, by_engine=self.is_deepspeed_enabled)

    def _rows_of(self, steps: list[int]) -> dict[str, Any]:
        (step,) = steps
        return {"batch": _Opaque(self._batch(step))}

    def _batch(self, step: int) -> StepBatch:
        if self.in_turn:
            at, retain = divmod(step, 2)
            return StepBatch(step, () if retain else self.forget.at(at), self.retain.at(at) if retain else ())
        return StepBatch(step, self.forget.at(step), self.retain.at(step))

    def create_optimizer(self, model: Any = None) -> Optimizer:
        """The optimizer of our configuration."""
        if getattr(self, "optimizer", None) is None:
            self.optimizer: Optimizer = build_optimizer(self.model, self.config)
        return self.optimizer

    def get_train_dataloader(self) -> DataLoader[int]:
        """The steps in their order, the same in every process."""
        return DataLoader(self.train_dataset, batch_size=1, collate_fn=self.data_collator)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Gradients of the step's loss; a loss that is not finite stops the run before it can touch the weights."""
        batch: StepBatch = inputs["batch"].value
        model.train()
        with self.compute_loss_context_manager(), cast_by_autocast(self.model, self.args.bf16):
            following = batch.step + 1
            loss = self.gradient_step.step(batch, self._batch(following) if following < self.args.max_steps else None)
        for name, part in loss.parts.items():
            self.curves.setdefault(name, []).append((batch.step + 1, part))
        return torch.tensor(loss.total, device=self.args.device)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Tell trackers the parts of the loss too, and recall and drift after the steps that measured them."""
        measured = self.measured.curves if self.measured else {}
        now = {name.replace(" ", "_"): curve[-1][1] for name, curve in measured.items() if curve[-1][0] == self.state.global_step}
        super().log(logs | {f"loss_{name}": curve[-1][1] for name, curve in self.curves.items()} | now, *args, **kwargs)


class _Opaque:
    """Carries rows through the data loader, which would otherwise take tuples apart."""

    def __init__(self, value: StepBatch) -> None:
        self.value = value


class _Report(TrainerCallback):
    """Moves the bar, and draws the loss beside it; it comes after the validation, whose latest recall it shows."""

    def __init__(self, progress: Progress, trainer: UnlearnTrainer) -> None:
        self.progress, self.trainer = progress, trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if isinstance(self.progress, Bar):
            self.progress.trace = trace({**self.trainer.curves, **(self.trainer.measured.curves if self.trainer.measured else {})})
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
    validation: EarlyStop | RecallCurves | None = None,
    checkpoints: Checkpoints | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Curves:
    """Train `model` in place by `method`, which has been prepared.

    Args:
        model: the model in training; its parameters may be sharded over processes.
        method: the prepared method, which gives the loss.
        forget: rows to forget.
        retain: rows to keep.
        config: settings of training.
        seed: random seed; the order of the rows follows from it too.
        progress: called with (steps done, steps in all).
        validation: early stopping, or curves of recall; None takes all steps.
        checkpoints: where the run keeps its state, and resumes from.
        callbacks: further callbacks of the trainer.

    Returns:
        Part of the loss to points (step, value).

    Raises:
        RunError: the loss or a gradient stops being finite, or memory does not suffice.
        OutputError: the checkpoint is of another run, or one cannot be written.
        StoppedError: a signal asked the run to stop; it can go on from its checkpoint.
    """
    steps = count_steps(config, len(forget), len(retain), turns=2 if method.alternates and forget and retain else 1)
    retain_rows = config.retain_rows if forget else (config.retain_batch or config.forget_batch)
    found = checkpoints.read() if checkpoints else None
    if found and found.notes["done"]:
        put_result(model, validation, found)
        return curves_of(found.notes)
    with tempfile.TemporaryDirectory(prefix="vgid-") as folder, listening() if checkpoints else nullcontext(StopRequest()) as request:
        trainer = UnlearnTrainer(
            model,
            method,
            Rows(forget, config.forget_batch, derive_seed(seed, "forget"), config.pack),
            Mixture(retain, retain_rows, derive_seed(seed, "retain"), config.pack),
            config,
            range(found.notes["step"] if found else 0, steps),
            seed,
            validation,
            output_dir=folder,
            callbacks=[*callbacks, *([validation] if validation else [])],
        )
        if progress:
            trainer.add_callback(_Report(progress, trainer))
        if checkpoints:
            trainer.add_callback(CheckpointCallback(trainer, checkpoints, config.checkpoint_every, request, validation, found))
        try:
            trainer.train()
        finally:
            # Mixed precision is for training: what comes after, exports above all, must see the weights as they are.
            trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    return trainer.curves


def count_steps(config: TrainingConfig, forget: int, retain: int, turns: int = 1) -> int:
    """Optimizer steps of a run.

    Args:
        config: settings of training.
        forget: number of forget rows.
        retain: number of retain rows; epochs count over them where nothing is forgotten.
        turns: steps that one step's rows of both sides take: 2 where the sides take turns.

    Returns:
        `config.steps`, or the steps of `config.epochs` epochs; at least `config.min_steps` where something is forgotten, else 1.
    """
    if config.steps is not None:
        return config.steps
    rows, batch = (forget, config.forget_batch) if forget else (retain, config.retain_batch or config.forget_batch)
    return max(config.min_steps if forget else 1, round(turns * config.epochs * rows / batch))
