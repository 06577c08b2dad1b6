"""Run what a checkpoint brings with it, such as a chat template or a pattern, in a worker process under limits of time and memory.

The worker is forked, so it has everything that the process has; limits hold on Linux only, elsewhere the call is made directly.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, NoReturn

SECONDS = 10.0
"""Time that one call may take; chosen by hand, a thousand times what a chat template takes."""
MEMORY = 1 << 30
"""Bytes of memory that a worker may take beyond what the process had when it was forked."""
LONGEST = 16 * 2**20
"""Characters of a text that a worker may return."""


_ended: list[int] = []
"""Processes that were killed; the system keeps their entries until they are waited for, which is done when the next one is made."""


class OverLimitError(Exception):
    """A call took more time or memory than it may, or its process ended; the text says which."""


class CallError(Exception):
    """A call raised an exception; the text is the name of its class alone.

    Attributes:
        kind: name of the exception's class.
        text: its message, which may hold the data of the call.
        line: its attribute `lineno`, where it has one, as jinja's errors have.
    """

    def __init__(self, kind: str, text: str, line: int | None) -> None:
        super().__init__(kind)
        self.kind, self.text, self.line = kind, text, line


class Worker:
    """A process that answers calls of one function, as the function is when the worker is made.

    Args:
        function: what it calls; its results must be plain values.
        seconds: time that one call may take; None for `SECONDS`.
        memory: bytes that the process may take beyond those of its parent.
    """

    def __init__(self, function: Callable[..., Any], seconds: float | None = None, memory: int = MEMORY) -> None:
        self.seconds, self._lock, self.owner = seconds or SECONDS, threading.Lock(), os.getpid()
        self._function = None if sys.platform == "linux" else function
        if self._function is None:
            self._start(function, memory)

    def __call__(self, *arguments: Any) -> Any:
        """Call the function.

        Raises:
            OverLimitError: it took too much time or memory.
            CallError: it raised an exception.
        """
        if self._function is not None:
            try:
                return self._function(*arguments)
            except Exception as error:
                raise CallError(*_described(error)) from error
        with self._lock:
            try:
                self._pipe.send(arguments)
                if not self._pipe.poll(self.seconds):
                    self.close()  # what it answers later must not be taken for the answer to another call
                    raise OverLimitError(f"no end after {self.seconds:.0f} s")
                kind, value = self._pipe.recv()
            except (EOFError, OSError) as error:
                raise OverLimitError("its process was ended, as by a lack of memory") from error
        if kind == "memory":
            raise OverLimitError(value)
        if kind == "error":
            raise CallError(*value)
        return value

    def close(self) -> None:
        """End the process."""
        if self._function is None and self.owner == os.getpid() and not self._pipe.closed:
            self._pipe.close()
            with suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGKILL)
            _ended.append(self._process)

    def __del__(self) -> None:
        self.close()

    def _start(self, function: Callable[..., Any], memory: int) -> None:
        for process in _ended[:]:
            with suppress(ChildProcessError):
                if os.waitpid(process, os.WNOHANG)[0] == 0:
                    continue
            _ended.remove(process)
        self._pipe, theirs = Pipe()
        self._process = os.fork()
        if self._process == 0:
            self._pipe.close()  # else it would never see that the parent has ended
            _serve(theirs, function, self.seconds, memory)
        theirs.close()


def limited(function: Callable[..., Any], *arguments: Any, seconds: float | None = None, memory: int = MEMORY) -> Any:
    """Make one call in a worker of its own.

    Args:
        function: what to call.
        *arguments: its arguments.
        seconds: time that it may take; None for `SECONDS`.
        memory: bytes that it may take beyond those of this process.

    Returns:
        What the function returns.

    Raises:
        OverLimitError: it took too much time or memory.
        CallError: it raised an exception.
    """
    worker = Worker(function, seconds, memory)
    try:
        return worker(*arguments)
    finally:
        worker.close()


def _serve(pipe: Any, function: Callable[..., Any], seconds: float, memory: int) -> NoReturn:
    try:
        _let_go(pipe.fileno())
        faulthandler.disable()  # it may write elsewhere, and the parent tells how the worker ended
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # the parent decides when the worker ends
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        _limit_memory(memory)
        while True:
            arguments = pipe.recv()
            signal.alarm(int(seconds) + 2)  # ends an endless call also when the parent has been killed
            pipe.send(_answer(function, arguments, memory))
            signal.alarm(0)
    except (EOFError, OSError):
        pass
    finally:
        os._exit(0)  # nothing of the parent's is cleaned up twice


def _let_go(kept: int) -> None:
    """Leave all open files, sockets and pipes to the parent, which would wait for ever for the end of one that is also held here.

    Their numbers stay taken: what still refers to one closes nothing that is opened here.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    for held in [int(each.name) for each in Path("/proc/self/fd").iterdir()]:
        if held not in (kept, nowhere):
            os.dup2(nowhere, held)


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...], memory: int) -> tuple[str, Any]:
    try:
        value = function(*arguments)
    except MemoryError:
        return "memory", f"it takes more than {memory >> 20} MiB"
    except Exception as error:
        return "error", _described(error)
    if sum(len(text) for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)) > LONGEST:
        return "memory", f"it makes a text of more than {LONGEST >> 20} million characters"
    return "value", value


def _described(error: Exception) -> tuple[str, str, int | None]:
    line = getattr(error, "lineno", None)
    return type(error).__name__, str(error), line if isinstance(line, int) else None


def _limit_memory(memory: int) -> None:
    import resource

    import psutil

    _, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = psutil.Process().memory_info().vms + memory
    resource.setrlimit(resource.RLIMIT_AS, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))
