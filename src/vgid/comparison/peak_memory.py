"""The largest amount of memory that was held while something ran."""

from __future__ import annotations

import threading
from types import TracebackType

import psutil
import torch

EVERY = 0.05
"""Seconds between two measurements of the process: a peak that is shorter may be missed."""


class PeakMemory:
    """A context that measures memory; `bytes` holds the peak, of the device where there is one, else of the whole process."""

    def __init__(self) -> None:
        self.bytes = 0
        self._device = torch.cuda.is_available()
        self._process, self._done = psutil.Process(), threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        if self._device:
            torch.cuda.reset_peak_memory_stats()
        else:
            self._watcher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._device:
            self.bytes = torch.cuda.max_memory_allocated()
        else:
            self._done.set()
            self._watcher.join()
            self._measure()

    def _watch(self) -> None:
        while not self._done.is_set():
            self._measure()
            self._done.wait(EVERY)

    def _measure(self) -> None:
        self.bytes = max(self.bytes, self._process.memory_info().rss)
