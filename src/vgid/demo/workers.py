"""Work in other processes at the same time, each with its share of the cores, since a small model cannot use many cores alone."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from types import TracebackType
from typing import Any

import torch

from vgid.progress import Progress, quiet_libraries

POLL_SECONDS = 0.2
"""Seconds to wait for news of a process before looking whether all have ended."""


class Workers:
    """Processes that work at the same time. Use it as a context manager.

    Args:
        count: number of processes, and so of calls that run at the same time.
        threads: threads of each; None for an equal share of the cores, and at most half of them.
    """

    def __init__(self, count: int, threads: int | None = None) -> None:
        self._context = get_context("spawn")
        self._manager = self._context.Manager()
        self._news = self._manager.Queue()
        self._pool = ProcessPoolExecutor(count, self._context, _prepare, (threads or share_of_cores(max(2, count)),))
        self._running: list[Future[Any]] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._manager.shutdown()

    def start(self, work: Callable[[Progress], Any]) -> None:
        """Call a function in one of the processes.

        Args:
            work: what to call, with a function for its progress (units done, units in all); it and what it returns can be pickled.
        """
        self._running.append(self._pool.submit(_run, work, len(self._running), self._news))

    def finish(self, progress: Sequence[Progress]) -> list[Any]:
        """Wait for all that was started.

        Args:
            progress: for each call, in the order in which they were started, a function for its progress.

        Returns:
            What each call returned, in the same order.

        Raises:
            Exception: what a call raised; raised once all have ended.
        """
        while not all(future.done() for future in self._running) or not self._news.empty():
            try:
                number, done, total = self._news.get(timeout=POLL_SECONDS)
                progress[number](done, total)
            except queue.Empty:
                continue
        return [future.result() for future in self._running]


def share_of_cores(processes: int) -> int:
    """Return the number of threads that one of several processes gets: at least one."""
    return max(1, (os.cpu_count() or 1) // processes)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Within the `with` statement, this process computes with this number of threads; None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _prepare(threads: int) -> None:
    quiet_libraries()
    torch.set_num_threads(threads)


def _run(work: Callable[[Progress], Any], number: int, news: Any) -> Any:
    return work(lambda done, total: news.put((number, done, total)))
