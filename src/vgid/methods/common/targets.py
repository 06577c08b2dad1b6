"""What the frozen base says at answer positions, worked out once and used again in every epoch.

Kept are the states `[n, h]` that go into the head, not distributions `[n, v]`: tens of times less, and the same logits to the last bit.
The last bits depend on what else was in a pass, so a run that goes on from a checkpoint repeats the passes it had taken.

Shapes: n answer tokens of an example, h hidden size, v vocabulary.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vgid.data.batching import Batch
from vgid.data.example import Example
from vgid.memory import to_device
from vgid.models.forward import answer_states
from vgid.processes import is_sharded

IN_MEMORY = 2 * 2**30
"""Bytes kept in memory; what is beyond goes into a temporary file that has no name, and so is gone with the process."""


class _Place(NamedTuple):
    offset: int
    shape: torch.Size
    dtype: torch.dtype


class Shelf:
    """Tensors by key: in memory up to a size, then in a nameless temporary file."""

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self.in_memory, self._held, self._written = in_memory, 0, 0
        self._things: dict[Hashable, Tensor | _Place] = {}
        self._file: Any = None

    def __contains__(self, key: Hashable) -> bool:
        return key in self._things

    def put(self, key: Hashable, value: Tensor) -> None:
        """Keep a tensor."""
        value = value.detach().cpu().contiguous()
        if self._held + value.nbytes <= self.in_memory:
            self._held += value.nbytes
            self._things[key] = value.clone()
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="vgid-")  # noqa: SIM115  closed with the process
        os.pwrite(self._file.fileno(), value.view(torch.uint8).numpy().tobytes(), self._written)
        self._things[key] = _Place(self._written, value.shape, value.dtype)
        self._written += value.nbytes

    def get(self, key: Hashable) -> Tensor:
        """The tensor again."""
        found = self._things[key]
        if isinstance(found, Tensor):
            return found
        size = found.shape.numel() * found.dtype.itemsize
        content = bytearray(os.pread(self._file.fileno(), size, found.offset))
        return torch.frombuffer(content, dtype=found.dtype).reshape(found.shape)


class Targets:
    """Logits of the frozen base for examples, computed when they are first asked for.

    Args:
        batch: encodes examples as the base is to see them; the same example must always give the same.
        rows: all examples that may come, in an order that is the same when a run goes on.
        in_memory: bytes kept in memory.
    """

    def __init__(self, batch: Callable[[tuple[Example, ...]], Batch], rows: Sequence[Example], in_memory: int = IN_MEMORY) -> None:
        self._batch, self._rows, self._shelf = batch, rows, Shelf(in_memory)
        self._passes: list[list[int]] = []
        self._earlier: dict[str, tuple[Example, ...]] = {}
        self._head_suffices: bool | None = None

    @torch.no_grad()
    def logits(self, base: Any, examples: Sequence[Example]) -> Tensor:
        """Logits `[n, v]` at the answer positions of all examples, in their order.

        With parameters sharded over processes nothing is kept: each process would miss other examples, and none can take a pass
        alone.
        """
        if is_sharded(base):
            return answer_states(base, self._batch(tuple(examples))).logits
        for example in examples:
            if example.id in self._earlier and example.id not in self._shelf:
                self._take(base, self._earlier[example.id])
        missing = tuple({example.id: example for example in examples if example.id not in self._shelf}.values())
        if missing:
            self._passes.append([self._places[example.id] for example in missing])
            self._take(base, missing)
        device = next(base.parameters()).device
        found = to_device(torch.cat([self._shelf.get(example.id) for example in examples]), device)
        return _head(base, found) if self._head_suffices else found

    def state_dict(self) -> dict[str, Tensor]:
        """The passes so far, for a checkpoint: rows by their places among all rows, and the number of rows in each pass."""
        counts = torch.tensor([len(each) for each in self._passes], dtype=torch.long)
        return {"counts": counts, "rows": torch.tensor([place for each in self._passes for place in each], dtype=torch.long)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Repeat passes as they were, each when one of its rows is asked for."""
        self._passes = [places.tolist() for places in state["rows"].split(state["counts"].tolist())]
        for places in self._passes:
            examples = tuple(self._rows[place] for place in places)
            self._earlier |= dict.fromkeys((example.id for example in examples), examples)

    def _take(self, base: Any, examples: tuple[Example, ...]) -> None:
        """One pass of the base."""
        batch = self._batch(examples)
        states = answer_states(base, batch)
        if self._head_suffices is None:
            # Some families still scale or cap what the head gives; of these the logits themselves are kept.
            self._head_suffices = torch.equal(_head(base, states.hidden), states.logits)
        kept = states.hidden if self._head_suffices else states.logits
        for place, example in enumerate(examples):
            self._shelf.put(example.id, kept[batch.owners == place])

    @cached_property
    def _places(self) -> dict[str, int]:
        return {example.id: place for place, example in enumerate(self._rows)}


def _head(base: Any, hidden: Tensor) -> Tensor:
    logits: Tensor = base.get_output_embeddings()(hidden[None])[0]
    return logits
