"""A model that is asked through a filter: its weights have forgotten nothing."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from PIL import Image

from vgid.data.batching import EncodedRow, Encoder, Pictures
from vgid.data.example import Example, ImageRef

GREY = io.BytesIO()
Image.new("RGB", (96, 96), (127, 127, 127)).save(GREY, "png")


class Filter(Encoder):
    """Blocked questions reach the model as a question about a grey picture."""

    def __init__(self, processor: Any, blocked: Callable[[Example], bool]) -> None:
        super().__init__(processor)
        self.blocked = blocked

    def row(self, example: Example, instruction: str | None = None, answer: str | None = "", images: Pictures | None = None) -> EncodedRow:
        if self.blocked(example):
            example = Example(example.id, "Who is this person?", example.answer, (ImageRef(data=GREY.getvalue()),), where=example.where)
        return super().row(example, instruction, answer, images)
