"""Tracebacks without an error's own words: those of libraries may repeat a question, an answer or a name."""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType

SHOW, VARIABLE = "--show-forgotten", "VGID_SHOW_FORGOTTEN"


def withhold(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An exception hook: where it happened, and of which kind each error was, the one that led to it first.

    Import errors say only what is not installed, so their words are shown.
    """
    if SHOW in sys.argv or os.environ.get(VARIABLE) == "1":
        sys.__excepthook__(kind, error, trace)
        return
    led = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if led is not None:
        withhold(type(led), led, led.__traceback__)
        print("\nThat led to:\n", file=sys.stderr)
    print("".join(traceback.format_tb(trace)), end="", file=sys.stderr)
    words = str(error) if isinstance(error, ImportError) else f"its words may repeat data, so they are withheld ({SHOW}, or {VARIABLE}=1)"
    print(f"{kind.__module__}.{kind.__name__}: {words}", file=sys.stderr)
