"""Calls of what a checkpoint brings with it: they end, whatever they do, and the process goes on as before."""

import os
import re
import subprocess
import sys
import time

import pytest
from jinja2 import Environment

from vgid import limits
from vgid.limits import CallError, OverLimitError, Worker, limited

linux = pytest.mark.skipif(sys.platform != "linux", reason="limits hold on Linux only")


def endless() -> None:
    while True:
        pass


@linux
def test_a_call_that_does_not_end_is_ended() -> None:
    with pytest.raises(OverLimitError, match="no end after"):
        limited(endless, seconds=0.2)
    assert limited(lambda: 7) == 7  # and the next one is answered


@linux
def test_a_call_may_take_so_much_memory_and_no_more() -> None:
    assert limited(lambda: len(bytearray(2**25)), memory=2**28) == 2**25
    with pytest.raises(OverLimitError, match="more than 64 MiB"):
        limited(lambda: len(bytearray(2**30)), memory=2**26)


@linux
def test_a_text_may_be_so_long_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LONGEST", 100)
    assert limited(lambda: "a" * 100) == "a" * 100
    with pytest.raises(OverLimitError, match="a text of more than"):
        limited(lambda: "a" * 101)


def test_what_a_call_raises_comes_back_by_name_text_and_line() -> None:
    with pytest.raises(CallError) as raised:
        limited(re.compile, "(a")
    assert raised.value.kind == re.error.__name__ and "unterminated subpattern" in raised.value.text and raised.value.line == 1
    with pytest.raises(CallError) as raised:
        limited(lambda: Environment().from_string("one\n{% two %}").render())
    assert (raised.value.kind, raised.value.line) == ("TemplateSyntaxError", 2)
    with pytest.raises(CallError) as raised:
        limited(lambda: {}["Anna Keller"])
    assert str(raised.value) == raised.value.kind == "KeyError"  # nothing of the call's data, unless it is asked for
    assert raised.value.text == "'Anna Keller'" and raised.value.line is None


@linux
def test_a_process_that_ends_is_an_error() -> None:
    with pytest.raises(OverLimitError, match="its process was ended"):
        limited(os._exit, 0)


@linux
def test_a_worker_answers_again_and_again_and_changes_nothing_outside() -> None:
    seen: list[int] = []

    def count(number: int) -> int:
        seen.append(number)
        return sum(seen)

    worker = Worker(count)
    assert [worker(1), worker(2), worker(3)] == [1, 3, 6] and seen == []
    worker.close()
    with pytest.raises(OverLimitError):
        worker(4)


@linux
def test_a_worker_holds_nothing_open_that_its_parent_closes() -> None:
    """Such as the input of another process, which ends only when nobody can write to it any more."""
    other = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    worker = Worker(int)
    assert worker("7") == 7
    assert other.stdin is not None
    other.stdin.close()
    assert other.wait(timeout=20) == 0
    worker.close()


@linux
def test_ended_processes_are_waited_for() -> None:
    worker = Worker(int)
    process = worker._process
    worker.close()
    deadline = time.monotonic() + 5
    while process in limits._ended and time.monotonic() < deadline:
        limited(int)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
