"""The tensors of a plain checkpoint, layer by layer: adapters merged in, sharded parameters gathered, files written as they fill up.

No process ever holds a second whole model: of a model that is sharded over processes, one layer at a time is gathered, and the first
process keeps what it has not written yet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

from vgid import processes
from vgid.artifacts import write_json_atomic

FILE_BYTES = 4 * 2**30
"""A file of weights is closed when it holds as much, so that this is what a checkpoint takes in the host's memory while it is written."""
LAYER = re.compile(r".*?\.\d+(?=\.)")
"""The name of a layer, at the start of the names of its tensors."""


class Rounding(NamedTuple):
    """What rounding to a checkpoint's precision swallows of an update, as shares of its norm in [0, 1].

    Attributes:
        share: over all weights, ‖round(W + D) - W - D‖ / ‖D‖.
        layers: the same for each adapted layer, by its name.
    """

    share: float
    layers: Mapping[str, float]

    @property
    def worst(self) -> tuple[str, float]:
        """The layer that loses the largest share, and the share."""
        return max(self.layers.items(), key=lambda item: item[1], default=("", 0.0))


class Merging:
    """Merges a model's adapter layer by layer; the model itself is not changed.

    Args:
        base: the model inside PEFT's wrapper, whose linear layers may hold adapters, and whose parameters may be sharded.
        dtype: precision of what is written; None for the model's own.
    """

    def __init__(self, base: Any, dtype: torch.dtype | None = None) -> None:
        self.base, self.dtype = base, dtype
        self._squares: dict[str, tuple[float, float]] = {}

    @torch.no_grad()
    def pieces(self) -> Iterator[dict[str, Tensor]]:
        """Tensors of one layer after the other, then of all else, by their names in checkpoints and on the host.

        All processes of a sharded model must go through them together; the others than the first get nothing to write.
        """
        groups: dict[str, dict[str, Tensor]] = {}
        state = self.base.state_dict()
        left_out = _tied(self.base, state) | set(self.base._keys_to_ignore_on_save or ())
        for name, value in state.items():
            if ".lora_" not in name and name not in left_out:
                found = LAYER.match(name)
                groups.setdefault(found[0] if found else "", {})[name] = value
        del state
        first = processes.rank() == 0 or not processes.is_sharded(self.base)
        for group in sorted(groups, key=lambda name: name == ""):
            merged: dict[str, Tensor] = {}
            for name, value in groups.pop(group).items():
                whole = processes.full_tensor(value)
                if first:
                    merged |= self._merged(name, whole)
                del value, whole
            yield revert_weight_conversion(self.base, merged) if first else {}

    def rounding(self) -> Rounding:
        """What rounding has swallowed so far."""
        lost, update = (sum(each) for each in zip(*self._squares.values(), strict=True)) if self._squares else (0.0, 0.0)
        shares = {name: (gone / of) ** 0.5 if of else 0.0 for name, (gone, of) in self._squares.items()}
        return Rounding((lost / update) ** 0.5 if update else 0.0, shares)

    def _merged(self, name: str, value: Tensor) -> dict[str, Tensor]:
        owner, adapted, kind = name.rpartition(".base_layer.")
        kept = self.dtype if self.dtype is not None and value.is_floating_point() else value.dtype
        if not (adapted and kind == "weight"):
            return {f"{owner}.{kind}" if adapted else name: value.to("cpu", kept)}
        layer = self.base.get_submodule(owner)
        # Summed in float32, so that the result is rounded once.
        delta = sum((layer.get_delta_weight(each).float() for each in layer.active_adapters), torch.zeros((), device=value.device))
        exact = value.float() + delta
        rounded = exact.to(kept)
        self._squares[owner] = float((rounded.float() - exact).square().sum()), float(delta.square().sum())
        return {f"{owner}.weight": rounded.cpu()}


def _tied(base: Any, state: Mapping[str, Tensor]) -> set[str]:
    """Names of tensors that are another name of a tensor that is written."""
    sources = getattr(base, "all_tied_weights_keys", None) or {}
    return {name for name, source in sources.items() if name in state and source in state and _place(state[name]) == _place(state[source])}


def _place(value: Tensor) -> int:
    return processes.shard_of(value).data_ptr()


class WeightFiles:
    """Writes tensors into files of `FILE_BYTES` as they come, and names them as transformers does.

    Args:
        folder: the folder to fill.
        size: bytes at which a file is closed; None for `FILE_BYTES`.
    """

    def __init__(self, folder: Path, size: int | None = None) -> None:
        self.folder, self.size = folder, size or FILE_BYTES
        self._open: dict[str, Tensor] = {}
        self._written: list[list[str]] = []
        self._bytes = 0

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        """Add tensors; what fills a file is written and given up."""
        for name, value in tensors.items():
            if self._open and sum(each.nbytes for each in self._open.values()) + value.nbytes > self.size:
                self._close()
            self._open[name] = value.contiguous()

    def finish(self) -> None:
        """Write what is left, give the files their names, and write their index where there are several."""
        if self._open or not self._written:
            self._close()
        count = len(self._written)
        if count == 1:
            self._part(0).rename(self.folder / "model.safetensors")
            return
        names: dict[str, str] = {}
        for number, tensors in enumerate(self._written):
            final = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
            self._part(number).rename(self.folder / final)
            names |= dict.fromkeys(tensors, final)
        index = {"metadata": {"total_size": self._bytes}, "weight_map": dict(sorted(names.items()))}
        write_json_atomic(self.folder / "model.safetensors.index.json", index)

    def _close(self) -> None:
        save_file(self._open, self._part(len(self._written)), {"format": "pt"})
        self._bytes += sum(each.nbytes for each in self._open.values())
        self._written.append(list(self._open))
        self._open = {}

    def _part(self, number: int) -> Path:
        return self.folder / f"model.part-{number:05d}"


def set_precision(config: Path, dtype: torch.dtype) -> None:
    """Write a precision into a model's configuration, since stock libraries load weights in the precision that is named there."""
    word = str(dtype).removeprefix("torch.")

    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: word if key in ("dtype", "torch_dtype") and each else changed(each) for key, each in value.items()}
        return value

    write_json_atomic(config, changed(json.loads(config.read_text("utf-8"))))
