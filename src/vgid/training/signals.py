"""Ctrl-C and SIGTERM while training: the step under way is finished and kept; a second signal ends the process at once."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger("vgid")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """The signal that asked the run to stop, if one did."""

    signal: int | None = None


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Note signals instead of ending at once; only the main thread can, in other threads nothing changes."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, _: FrameType | None) -> None:
        request.signal = number
        signal.signal(number, signal.SIG_DFL)
        log.info("%s: finishing this step and writing a checkpoint; once more to stop at once", signal.Signals(number).name)

    try:
        for number in SIGNALS:
            signal.signal(number, note)
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
