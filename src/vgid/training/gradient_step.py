"""One gradient step: the gradients of a method's loss over all rows of a step, in parts that fit into memory and over all processes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import set_seed

from vgid import processes
from vgid.errors import ConfigError, RunError
from vgid.memory import free_memory, gigabytes, is_out_of_memory
from vgid.methods.base import Method, StepBatch
from vgid.methods.cutting import WORTH, Cut
from vgid.methods.engine import PassLoss, Plan
from vgid.models.fused_lora import fused
from vgid.seeds import derive_seed
from vgid.settings import TrainingConfig
from vgid.training.shares import Part, parts_of

log = logging.getLogger("vgid")
Backward = Callable[[Tensor], None]


@dataclass
class StepLoss:
    """The loss of a step, or of one process's share of it.

    Attributes:
        total: the loss.
        parts: part of the loss to its value, unweighted.
        broken: ids of the rows of passes with a loss that is not finite.
    """

    total: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


class _Passes:
    """Losses of passes, left on the device until all are done: reading each of them would make the device wait for the host."""

    def __init__(self) -> None:
        self._names: list[tuple[int, str | None]] = []
        self._values: list[Tensor] = []
        self._rows: list[list[str]] = []

    def add(self, out: PassLoss, part: Part) -> None:
        """Add the loss of one pass."""
        number = len(self._rows)
        self._rows.append([row.id for row in (*part.batch.forget, *part.batch.retain)])
        for name, value in [(None, out.total), *out.parts.items()]:
            self._names.append((number, name))
            self._values.append(part.weight * value.detach().float())

    def read(self) -> StepLoss:
        """The sums, in one transfer from the device."""
        loss = StepLoss()
        values = torch.stack(self._values).tolist() if self._values else []
        for (number, name), value in zip(self._names, values, strict=True):
            if name is not None:
                loss.parts[name] = loss.parts.get(name, 0.0) + value
                continue
            loss.total += value
            if not math.isfinite(value):
                loss.broken += [row for row in self._rows[number] if row not in loss.broken]
        return loss


def together(shares: Iterable[StepLoss]) -> StepLoss:
    """The loss of a step from the shares of all processes."""
    out = StepLoss()
    for share in shares:
        out.total += share.total
        out.broken += share.broken
        for name, value in share.parts.items():
            out.parts[name] = out.parts.get(name, 0.0) + value
    return out


class GradientStep:
    """Computes the gradients of a step.

    Args:
        model: the model in training, not wrapped; its parameters may be sharded over processes.
        method: the prepared method, which gives the loss.
        config: settings of training; `micro_batch` and `max_tokens` are read from it (`auto` is worked out before, here it means no limit).
        seed: random seed of the run; randomness within a step follows from it and the step.
        backward: the trainer's backward pass, which knows about loss scaling.
        ahead: plan the next step while a device works on this one; None does so where the model is on a GPU.
        by_engine: an engine such as DeepSpeed averages gradients over processes; it counts passes and so gets one for each step.

    Raises:
        ConfigError: the method's loss cannot be taken apart or cut by tokens, or takes other passes for other rows, but is to be.
    """

    def __init__(
        self,
        model: Any,
        method: Method[Any],
        config: TrainingConfig,
        seed: int,
        backward: Backward,
        *,
        ahead: bool | None = None,
        by_engine: bool = False,
    ) -> None:
        self.model, self.method, self.config, self.seed, self.backward, self.by_engine = model, method, config, seed, backward, by_engine
        self.micro_batch = config.micro_batch
        self.max_tokens = config.max_tokens if isinstance(config.max_tokens, int) else None
        self.sharded = processes.is_sharded(model)
        # Of sharded parameters PyTorch itself averages gradients; an adapter is whole in every process.
        self.averaged = by_engine or any(processes.shard_of(p) is not p for p in model.parameters() if p.requires_grad)
        self._halved = False
        self._on_gpu = next(model.parameters()).device.type == "cuda"
        self.ahead = self._on_gpu if ahead is None else ahead
        self._planned: tuple[Hashable, list[Plan]] = (None, [])
        unsupported = method.unsupported()
        self.splits = "splitting" not in unsupported
        if not self.splits and (self.micro_batch is not None or processes.count() > 1):
            raise ConfigError(
                f"the loss of this method, with its settings, cannot be taken apart: {unsupported['splitting'].reason}",
                expected="one process and training.micro_batch=null",
                got=f"{processes.count()} processes, training.micro_batch={self.micro_batch}",
                fix=unsupported["splitting"].fix,
            )
        # All processes that share a model take the same passes, and an engine takes one.
        self.cuts = cuts_by_tokens(method, sharded=self.sharded, by_engine=by_engine)
        if self.max_tokens is not None and not self.cuts:
            raise ConfigError(
                "a step of this run cannot be cut by tokens",
                where="training.max_tokens",
                expected="a loss that is stated in terms, in one process or under DDP",
                got="parameters that are shared by processes" if self.sharded or by_engine else "a method with a loss of its own",
                fix="set training.max_tokens=auto" + ("" if by_engine else ", and where memory is short training.micro_batch"),
            )
        if self.sharded and "sharding" in unsupported:
            raise ConfigError(
                f"this method, with its settings, cannot be trained with sharded parameters: {unsupported['sharding'].reason}",
                expected="training.shard=false",
                got="a sharded run",
                fix=unsupported["sharding"].fix,
            )

    def step(self, batch: StepBatch, following: StepBatch | None = None) -> StepLoss:
        """Gradients of the mean over all rows, in every process; gives the loss.

        Args:
            batch: rows of the step.
            following: rows of the next one, which may be planned meanwhile; None for the last step.

        Raises:
            DataError: rows cannot be encoded.
            RunError: the loss or a gradient is not finite, or memory does not suffice; no weight has been touched.
        """
        # A compiler joins operations itself. DeepSpeed adds up gradients of all processes in the order in which they become known; those of
        # a fused layer become known together, in an order that depends on the passes that a process has.
        with fused(self.model, self.config.torch_compile is not True and not self.by_engine):
            mine = self._mine(batch, following)
        loss = together(processes.exchange(mine))
        if loss.broken:
            raise _not_finite("the loss", loss.total, batch, loss.broken)
        if not self.averaged:
            processes.sum_gradients(self.model.parameters())
        norm = self._gradient_norm()
        if not math.isfinite(norm):
            raise _not_finite("the gradient", norm, batch, [row.id for row in (*batch.forget, *batch.retain)])
        return loss

    def _mine(self, batch: StepBatch, following: StepBatch | None) -> StepLoss:
        """This process's share; where memory does not suffice, once more in parts of half the size."""
        try:
            return self._pass(batch, following)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if self._halved or self.sharded or self.by_engine or not self.splits:
                raise self._too_large(error) from error
        # Out of the except clause, which keeps the tensors of the failed pass alive.
        self._halve(batch)
        return self._mine(batch, following)

    def _pass(self, batch: StepBatch, following: StepBatch | None) -> StepLoss:
        # So that a run that goes on from a checkpoint meets the same randomness as one that never stopped.
        set_seed(derive_seed(self.seed, "step", batch.step, processes.rank()) % 2**32)
        done, losses = _Passes(), []
        scale = processes.count() if self.averaged else 1
        parts = self._parts(batch)
        (key, plans), self._planned = self._planned, (None, [])
        for part, plan in zip(parts, plans if key == self._key(batch) else [None] * len(parts), strict=True):
            for out in self._losses(part.batch, plan):
                done.add(out, part)
                if not out.total.requires_grad:
                    continue
                if self.by_engine:
                    losses.append(out.total * (part.weight * scale))
                else:
                    self.backward(out.total * (part.weight * scale))
        if following is not None:
            self._plan(following)
        share = done.read()  # waits for the device
        if losses:  # the engine also takes the step
            if share.broken:
                raise _not_finite("the loss", share.total, batch, share.broken)
            self.backward(torch.stack(losses).sum())
        return share

    def _key(self, batch: StepBatch) -> Hashable:
        """What plans of a step depend on: those made before memory fell short are of no use."""
        return batch.step, self.max_tokens, self.micro_batch

    def _plan(self, batch: StepBatch) -> None:
        """Encode, perturb and join the rows of the next step while the device works through what this one has queued.

        No thread: the interpreter lock would make this step's kernels wait for it, and all of them are queued by now.
        """
        if not self.ahead or self.by_engine or not self.method.foreseen(batch.step):
            return
        plans = [self.method.plan(part.batch, self._cut()) for part in self._parts(batch)]
        for plan in plans if self._on_gpu else ():
            plan.pin()
        self._planned = self._key(batch), plans

    def _losses(self, batch: StepBatch, plan: Plan | None) -> Iterable[PassLoss]:
        if not self.by_engine:
            return self.method.passes(self.model, batch, self._cut(), plan)
        out = self.method.loss(self.model, batch)  # an engine differentiates once, when all passes are done
        return [PassLoss(out.total, out.parts, attacked=False)]

    def _parts(self, batch: StepBatch) -> list[Part]:
        if not self.splits:
            return [Part(batch, 1.0)]
        if self.micro_batch is None and processes.count() == 1 and self.method.states_terms:
            return [Part(batch, 1.0)]  # the method's own passes put both sides together
        share = (processes.rank(), processes.count())
        if self.sharded:
            return parts_of(batch, self.micro_batch, *share, together=True, state=self.method.model_state)
        return parts_of(batch, self.micro_batch, *share)

    def _cut(self) -> Cut:
        if not self.cuts:
            return Cut()
        kind = next(self.model.parameters()).device.type
        return Cut(self.max_tokens, WORTH.get(kind, WORTH["cuda"]), buckets=kind != "cpu" or self.config.torch_compile is True)

    def _halve(self, batch: StepBatch) -> None:
        self.model.zero_grad(set_to_none=True)
        free_memory()
        if self.cuts and self.micro_batch is None:
            tokens = max(self.method.largest_pass(part.batch, self._cut()) for part in self._parts(batch))
            self.max_tokens, self._halved = max(1, tokens // 2), True
            log.warning("memory does not hold %d tokens at once: from here on at most %d, in more passes", tokens, self.max_tokens)
            return
        rows = max(len(part.batch.forget) + len(part.batch.retain) for part in self._parts(batch))
        self.micro_batch, self._halved = max(1, rows // 2), True
        log.warning("memory does not hold %d rows at once: from here on %d in twice as many passes", rows, self.micro_batch)

    def _too_large(self, error: RuntimeError) -> RunError:
        together = f"{self.max_tokens} tokens" if self.max_tokens else f"{self.micro_batch or 'all'} rows"
        return RunError(
            "memory does not suffice for a step",
            expected=f"room for {together} at once",
            got=f"{str(error).splitlines()[0]}\n  needed before any row: {_memory_needed(self.model, self.config)}",
            fix="set training.micro_batch=1, use smaller pictures, an adapter in place of all parameters, or more devices",
        )

    def _gradient_norm(self) -> float:
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        return float(processes.full_tensor(torch.nn.utils.get_total_norm(gradients))) if gradients else 0.0


def cuts_by_tokens(method: Method[Any], *, sharded: bool, by_engine: bool) -> bool:
    """Whether the rows of a step are cut into passes by their tokens: the engine does it, each process for itself."""
    return method.states_terms and not sharded and not by_engine


def _not_finite(what: str, value: float, batch: StepBatch, ids: list[str]) -> RunError:
    return RunError(
        f"{what} is {value} at step {batch.step + 1}",
        expected="a finite one",
        got=f"rows {', '.join(ids)}",
        fix="lower training.learning_rate, or look at these rows; the last checkpoint, if there is one, is from before",
    )


def _memory_needed(model: Any, config: TrainingConfig) -> str:
    """What training takes apart from activations, in words: weights, gradients, optimizer, and what the device has."""
    weights = sum(p.nbytes for p in model.parameters())
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    moments = {"adamw": 2, "muon": 1}[config.optimizer]
    words = [f"weights {gigabytes(weights)}", f"gradients {gigabytes(trained)}", f"optimizer about {gigabytes(moments * trained)}"]
    device = next(model.parameters()).device
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        words.append(f"the device {gigabytes(total)}, of which {gigabytes(free)} are free")
    return "; ".join(words)
