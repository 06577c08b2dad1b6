"""A picture goes through the image processor once: for other prompts about it, a processor gets again what that returned."""

from __future__ import annotations

import copy
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image


class NotProcessedError(Exception):
    """What an image processor makes of these pictures is not known."""


class _Now(threading.local):
    """What the calls of this thread are about, and how many there were."""

    key: Hashable | None = None
    calls = 0


class ProcessedOnce:
    """Stands in for an image processor: within `of`, it remembers what that returned, or gives it again without the pixels.

    Processors write as many tokens for a picture as the image processor cut it into, so they call it for every prompt.

    Args:
        own: the image processor; all its other methods and attributes are reached through this object.
    """

    def __init__(self, own: Any) -> None:
        self._own = own
        self._returned: dict[Hashable, list[tuple[str, Any]]] = {}
        self._sizes: dict[Hashable, list[tuple[int, int]]] = {}
        self._lock = threading.Lock()
        self._now = _Now()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_own":
            raise AttributeError(name)
        return getattr(self._own, name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Return what the image processor returns; where it did so before for the pictures that `of` names, with zeros as pixels."""
        key, number = self._now.key, self._now.calls
        if key is None:
            return self._own(*arguments, **options)
        self._now.calls += 1
        asked = repr({name: value for name, value in options.items() if name != "images"})
        known = self._returned[key]
        if key in self._sizes:
            if number >= len(known) or known[number][0] != asked:
                raise NotProcessedError
            return copy.copy(known[number][1])  # processors take entries out of it
        returned = self._own(*arguments, **options)
        hollow = copy.copy(returned)
        for name, value in returned.items():
            hollow[name] = _hollow(value)
        known.append((asked, hollow))
        return returned

    def blank(self, key: Hashable) -> list[Image.Image] | None:
        """Pictures of the same sizes to pass in place of those that are known; None where they are not."""
        sizes = self._sizes.get(key)
        return None if sizes is None else [Image.new("RGB", size) for size in sizes]

    @contextmanager
    def of(self, key: Hashable, pictures: list[Image.Image]) -> Iterator[None]:
        """Within the `with` statement, calls are about some pictures.

        Args:
            key: stands for the pictures and their order.
            pictures: the pictures, or blank ones where they are known.

        Raises:
            NotProcessedError: the pictures are known, but not how the processor asks for them now.
        """
        with self._lock:
            known = key in self._sizes
            if not known:
                self._returned[key] = []
            self._now.key, self._now.calls = key, 0
            try:
                yield
                if not known and self._now.calls:
                    self._sizes[key] = [picture.size for picture in pictures]
            finally:
                self._now.key = None

    def forget(self, key: Hashable) -> None:
        """Forget pictures."""
        self._returned.pop(key, None)
        self._sizes.pop(key, None)


def processing_once(processor: Any) -> tuple[Any, ProcessedOnce | None]:
    """Return a copy of a processor whose image processor is one that processes once, and that; the processor itself without one."""
    if getattr(processor, "image_processor", None) is None:
        return processor, None
    own = copy.copy(processor)
    own.image_processor = once = ProcessedOnce(processor.image_processor)
    return own, once


def _hollow(value: Any) -> Any:
    """The value with zeros in place of pixels, which take no memory; what says how pictures were cut is kept."""
    if isinstance(value, list | tuple):
        return type(value)(map(_hollow, value))
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.new_zeros(()).expand(value.shape)
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return np.broadcast_to(np.zeros((), value.dtype), value.shape)
    return value
