"""What the decoder sees of pictures, for methods that train the vision tower and the projector.

Shapes: b rows, k tokens of a row that stand for its pictures, h hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vgid.data.batching import join_pictures
from vgid.data.example import Example
from vgid.errors import DataError
from vgid.methods.base import Context
from vgid.methods.common.targets import Shelf
from vgid.models.adapters import reference
from vgid.models.pictures import embed_pictures, picture_tokens, replaced_tokens


class Sight:
    """Embeddings of rows' pictures, by the model in training and by the base.

    Args:
        context: encodes the rows, and holds a copy of the base where there is one.
    """

    def __init__(self, context: Context) -> None:
        self._context, self._shelf = context, Shelf()

    def of(self, model: Any, examples: Sequence[Example]) -> list[Tensor]:
        """What the model sees of each row's pictures, `[k, h]` each; with gradients, where they are on."""
        encoder = self._context.encoder
        rows = [encoder.row(example) for example in examples]
        marks = replaced_tokens(model, encoder.image_marks)
        return list(embed_pictures(model, join_pictures(rows)).split([picture_tokens(row, marks) for row in rows]))

    def before(self, model: Any, examples: Sequence[Example]) -> list[Tensor]:
        """What the base sees of them, `[k, h]` each; computed once for each row's pictures, one row in a pass."""
        missing = {example.images: example for example in examples if example.images not in self._shelf}
        if missing:
            with reference(model, copy=self._context.reference_copy) as base:
                for images, example in missing.items():
                    self._shelf.put(images, self.of(base, [example])[0])
        return [self._shelf.get(example.images).to(self._context.device) for example in examples]


def with_pictures(examples: Sequence[Example]) -> tuple[Example, ...]:
    """The rows that have pictures."""
    return tuple(example for example in examples if example.images)


def require_pictures(name: str, context: Context) -> None:
    """Raises:
    DataError: no forget row has a picture, and the method changes only what is seen.
    """
    if not with_pictures(context.forget):
        raise DataError(
            f"{name} changes what is seen on pictures, and no forget row has one",
            expected="at least one forget row with a picture",
            got=f"{len(context.forget)} rows, all of them text only",
            fix="take a method that trains the language model, such as vgid",
        )


def visual_drift(now: Sequence[Tensor], before: Sequence[Tensor]) -> Tensor:
    """How far embeddings of pictures have moved: mean over tokens of the squared distance in units of the old length.

    Args:
        now: `[k, h]` for each row.
        before: the same of the base.

    Returns:
        One value for each row, `[b]`.
    """
    pairs = zip(now, before, strict=True)
    return torch.stack([((a.float() - b.float()).square().sum(-1) / b.float().square().sum(-1).clamp(min=1e-12)).mean() for a, b in pairs])
