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


class Asked:
    """The signal that asked the run to stop, if one did."""

    signal: int | None = None


@contextmanager
def listening() -> Iterator[Asked]:
    """Take signals down instead of dying of them; only the main thread may, elsewhere nothing changes."""
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def take_down(number: int, _: FrameType | None) -> None:
        asked.signal = number
        signal.signal(number, signal.SIG_DFL)
        log.info("%s: finishing this step and writing a checkpoint; once more to stop at once", signal.Signals(number).name)

    try:
        for number in SIGNALS:
            signal.signal(number, take_down)
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
