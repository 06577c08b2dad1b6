"""Whatever a file holds, its reader returns or raises a `VgidError`, and does not take long: damaged files, by hypothesis.

The quick tests read the same few thousand files each time. `make fuzz` reads `FUZZ_INPUTS` others, 100,000 where nothing is said. A file
that fails is shown as bytes; once mended, it becomes a row in `REGRESSIONS`.
"""

import logging
import os
import resource
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import FrameType

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from vgid import limits
from vgid.data import conversation

from .mutations import DEEP, damaged
from .readers import READERS, prepare, read
from .regressions import REGRESSIONS

INPUTS = os.environ.get("FUZZ_INPUTS")
QUICK = 1500
"""Inputs of the quick tests, over all readers."""
SECONDS = 10
"""Time that one file may take."""
MEMORY = 2 * 2**30
"""Bytes of memory that the process may take beyond what it had, at most."""
UNITS = sum(1 / reader.cost for reader in READERS.values())
ODD = {
    "nothing": b"",
    "a zero character": b"\0",
    "not UTF-8": b"\xff\xfe\xfa",
    "half a surrogate pair": b"\xed\xa0\x80",
    "half a surrogate pair, escaped": b'{"a": "\\ud800"}',
    "null": b"null",
    "a number": b"1",
    "a text": b'"a"',
    "lists": b"[[]]",
    "an empty object": b"{}",
    "deep lists": b"[" * DEEP,
    "deep objects": b'{"a":' * DEEP,
    "a long number": b'{"a": ' + b"9" * 5000 + b"}",
    "a number that is not finite": b'{"a": 1e999}',
    "a date that does not exist": b"a: 2026-13-45",
    "an alias of itself": b"&a [*a]",
}


@pytest.fixture(scope="module")
def place(random_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with everything that is read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "SECONDS", 1.0)  # templates and patterns that do not end shall not take long here
        logging.disable()  # what is logged may hold half of a surrogate pair, which pytest-xdist cannot send to its parent
        yield prepare(tmp_path_factory.mktemp("fuzz"), random_folder)
        logging.disable(logging.NOTSET)
    for worker in conversation._WORKERS.values():
        worker.close()
    conversation._WORKERS.clear()


class TooLongError(BaseException):
    """No reader may catch this."""


@contextmanager
def ended_in_time() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    except TooLongError as error:
        raise AssertionError(f"it takes more than {SECONDS} s") from error
    except BaseException as error:
        if isinstance(error, Exception | KeyboardInterrupt):
            raise
        raise AssertionError(f"{type(error).__name__} is no exception that anybody catches") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.parametrize("name", READERS)
def test_damaged_files(name: str, place: Path) -> None:
    reader, before = READERS[name], peak()
    seeds = reader.seeds(place)
    inputs = max(1, round(int(INPUTS or QUICK) / reader.cost / UNITS))

    # Damages are drawn by their numbers, so a failing file has no simpler neighbours to look for.
    quiet = {"database": None, "deadline": None, "suppress_health_check": list(HealthCheck), "phases": [Phase.generate]}

    @settings(max_examples=inputs, derandomize=INPUTS is None, **quiet)
    @given(st.sampled_from(seeds), st.lists(st.integers(0, 2**32), min_size=1, max_size=4))
    def check(seed: bytes, damages: list[int]) -> None:
        content = seed
        for number in damages:
            content = damaged(content, reader.form, Random(number))
        note(f"{len(content)} bytes: {content[:4000]!r}")
        try:
            with ended_in_time():
                read(reader, place, content)
        except Exception as error:  # reports cannot hold half of a surrogate pair
            raise AssertionError(ascii("".join(traceback.format_exception(error))).replace("\\n", "\n")) from None

    check()
    assert peak() - before < MEMORY


@pytest.mark.parametrize("name", READERS)
def test_whole_files_are_read(name: str, place: Path) -> None:
    reader = READERS[name]
    for seed in reader.seeds(place):
        (place / reader.file).write_bytes(seed)
        reader.read(place)


@pytest.mark.parametrize("name", [name for name, reader in READERS.items() if reader.cost < 100])
def test_files_that_hold_something_else(name: str, place: Path) -> None:
    for what, content in ODD.items():
        if READERS[name].form == "yaml" and what == "deep lists":
            continue  # takes half a second, and one row of `REGRESSIONS` has it
        with ended_in_time():
            read(READERS[name], place, content)


@pytest.mark.parametrize(("name", "content"), REGRESSIONS)
def test_files_that_failed_once(name: str, content: bytes, place: Path) -> None:
    with ended_in_time():
        read(READERS[name], place, content)
