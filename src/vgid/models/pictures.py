"""What the decoder sees of pictures, computed once: no step changes a frozen vision tower and projector.

A pass then gets the pictures' embeddings at the places of their tokens, and the model takes the batch for one of text. Nothing is read
back from the device meanwhile, where transformers compares the number of embeddings and of tokens in every pass.

Shapes: k tokens that stand for pictures, h hidden size.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vgid.data.batching import Batch, Embedded, EncodedRow, Encoder, join_pictures
from vgid.data.example import Example, ImageRef
from vgid.errors import ModelError
from vgid.memory import to_device
from vgid.models.forward import answer_logits
from vgid.models.packing_check import TOLERANCE
from vgid.models.structure import base_of, inspect_model
from vgid.processes import is_sharded, uses_deepspeed

KEPT_BYTES = 512 * 2**20
"""Embeddings are kept on the model's device up to this size, and computed anew beyond; chosen by hand."""
AT_ONCE = {"cpu": 1, "cuda": 8}
"""Examples whose pictures are embedded together, by kind of device; chosen by hand."""
PIXELS = ("pixel_values", "pixel_attention_mask")
"""Tensors of a row that the vision tower alone needs."""

log = logging.getLogger("vgid")


class Pictures:
    """Embeddings of pictures, from a vision tower and a projector that are frozen.

    Args:
        model: the model, with or without PEFT's wrapper.
        marks: ids of the tokens that stand for pictures.
    """

    def __init__(self, model: Any, marks: frozenset[int]) -> None:
        base = self._base = base_of(model)
        _embedding_of(base)  # of families without it, nothing is embedded ahead
        self._towers = [module for name in _names(base) for module in base.get_submodule(name).modules()]
        self._marks = replaced_tokens(base, marks)
        self._kept: dict[tuple[ImageRef, ...], Tensor] = {}
        self._bytes = 0

    def kept(self, wanted: Sequence[tuple[tuple[ImageRef, ...], EncodedRow]]) -> list[Tensor]:
        """Embeddings of examples' own pictures, which do not depend on what else is asked for.

        Args:
            wanted: pictures of each example, and its row with them.

        Returns:
            `[k, h]` for each example.
        """
        found = {images: self._kept[images] for images, _ in wanted if images in self._kept}
        alike: dict[Hashable, list[tuple[tuple[ImageRef, ...], EncodedRow]]] = {}
        for images, row in {images: row for images, row in wanted if images not in found}.items():
            alike.setdefault(tuple((name, value.shape) for name, value in row.images.items()), []).append((images, row))
        size = AT_ONCE.get(next(self._base.parameters()).device.type, AT_ONCE["cuda"])
        for some in alike.values():
            for start in range(0, len(some), size):
                part = some[start : start + size]
                # Always as many: batches of another size may be computed by other kernels, with other last bits.
                rows = [row for _, row in part] + [part[-1][1]] * (size - len(part))
                for (images, _), each in zip(part, self.each(rows), strict=False):
                    found[images] = each
                    if self._bytes + each.nbytes <= KEPT_BYTES:
                        self._kept[images] = each.clone() if size > 1 else each  # not the whole batch
                        self._bytes += each.nbytes
        return [found[images] for images, _ in wanted]

    @torch.no_grad()
    def embeddings(self, rows: Sequence[EncodedRow]) -> Tensor:
        """Embeddings `[k, h]` of the pictures of some rows, one after the other."""
        learning = [module for module in self._towers if module.training]
        try:
            for module in learning:
                module.training = False
            return embed_pictures(self._base, join_pictures(rows))
        finally:
            for module in learning:
                module.training = True

    def each(self, rows: Sequence[EncodedRow]) -> list[Tensor]:
        """The same for each row by itself, `[k, h]` each."""
        if not rows:
            return []
        return list(self.embeddings(rows).split([picture_tokens(row, self._marks) for row in rows]))

    def put(self, batch: Batch, embeddings: Sequence[Tensor]) -> Batch:
        """A batch whose pictures are embedded.

        Args:
            batch: on the host; of tensors about pictures it needs no pixels.
            embeddings: `[k, h]` for each row of the batch that holds pictures, in their order.

        Returns:
            The batch without pixels.

        Raises:
            ValueError: there are more or fewer embeddings than tokens that stand for pictures.
        """
        rows, positions = np.nonzero(np.isin(batch.model_inputs["input_ids"].numpy(), list(self._marks)))
        if sum(map(len, embeddings)) != len(rows):
            raise ValueError(f"{sum(map(len, embeddings))} embeddings for {len(rows)} tokens")
        inputs = {name: value for name, value in batch.model_inputs.items() if name not in PIXELS}
        values = torch.cat(list(embeddings)) if embeddings else None
        embedded = Embedded(torch.from_numpy(rows), torch.from_numpy(positions), values) if values is not None else None
        return replace(batch, model_inputs=inputs, embedded=embedded)


def embed_pictures(model: Any, pictures: Mapping[str, Tensor]) -> Tensor:
    """Compute what the decoder sees of pictures; with gradients, where they are on.

    Args:
        model: a transformers model, with or without PEFT's wrapper.
        pictures: tensors about pictures, as a processor returns them, of one or more rows.

    Returns:
        `[k, h]`, one picture after the other.

    Raises:
        ModelError: the family has no function that embeds pictures.
    """
    base = base_of(model)
    embed = _embedding_of(base)
    device, takes = next(base.parameters()).device, inspect.signature(embed).parameters
    found = embed(**{name: to_device(value, device) for name, value in pictures.items() if name in takes})
    found = getattr(found, "pooler_output", found)
    parts = list(found) if isinstance(found, (list, tuple)) else [found]
    return torch.cat([part.flatten(0, -2) for part in parts])


def replaced_tokens(model: Any, marks: frozenset[int]) -> frozenset[int]:
    """Tokens that the model replaces by embeddings: of those that stand for pictures, some are only beside them in some families."""
    own = getattr(base_of(model).config, "image_token_id", None)
    return frozenset((own,)) if own in marks else marks


def picture_tokens(row: EncodedRow, marks: frozenset[int]) -> int:
    """Number of a row's tokens that stand for pictures, as `replaced_tokens` gives them."""
    return int(np.isin(row.text["input_ids"].numpy(), list(marks)).sum())


def _embedding_of(base: Any) -> Callable[..., Any]:
    found = getattr(base, "get_image_features", None) or getattr(getattr(base, "model", None), "get_image_features", None)
    if found is None:
        raise ModelError("this family has no function that embeds pictures", expected="get_image_features", got=type(base).__name__)
    return found  # type: ignore[no-any-return]


def without_pixels(row: EncodedRow) -> EncodedRow:
    """A row without the tensors that the vision tower alone needs."""
    return replace(row, images={name: value for name, value in row.images.items() if name not in PIXELS})


def find_pictures(model: Any, encoder: Encoder, examples: Sequence[Example]) -> Pictures | None:
    """Find out whether this model's pictures can be embedded ahead, by comparing logits.

    Args:
        model: ready to train; it is called on one row for each number of pictures.
        encoder: encodes examples for it.
        examples: rows of the run.

    Returns:
        The embeddings; None where pictures take part in the training, are spread over processes, or where logits differ: a family may show
        its decoder more of a picture than embeddings.
    """
    rows = list({len(example.images): example for example in examples if example.images}.values())
    if not rows or is_sharded(model) or uses_deepspeed() or _is_trained(base_of(model)):
        return None
    reason = "the family has no function for them"
    try:
        pictures = Pictures(model, encoder.image_marks)
        reason = _difference(model, encoder, pictures, rows)
    except (ModelError, AttributeError, RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = f"{reason} ({type(error).__name__})"
    if reason:
        log.debug("pictures are embedded in every pass: %s", reason)
        return None
    return pictures


@torch.no_grad()
def _difference(model: Any, encoder: Encoder, pictures: Pictures, rows: Sequence[Example]) -> str:
    """Why embeddings cannot be used; empty if logits agree."""
    device, training = next(model.parameters()).device, model.training
    model.eval()
    try:
        for example in rows:
            row = encoder.row(example)
            plain = answer_logits(model, encoder.collate([row]).to(device))
            embedded = pictures.put(encoder.collate([without_pixels(row)]), pictures.kept([(example.images, row)]))
            ahead = answer_logits(model, embedded.to(device))
            worst = ((ahead - plain).abs().max() / plain.abs().max()).item()
            if not worst <= TOLERANCE.get(plain.dtype, 1e-4):  # or not a number
                return f"logits differ by {worst:.1e} of the largest"
    finally:
        model.train(training)
    return ""


def _names(base: nn.Module) -> tuple[str, ...]:
    found = inspect_model(base)
    modules = dict(base.named_modules())
    return tuple(name for name in (*found.vision, *found.projector) if name in modules)


def _is_trained(base: nn.Module) -> bool:
    structure = inspect_model(base)
    return any(p.requires_grad and structure.part_of(name) != "language" for name, p in base.named_parameters())
