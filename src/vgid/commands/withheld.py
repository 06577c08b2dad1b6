"""Tracebacks without the messages of errors: those of libraries may repeat a question, an answer or a name."""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType

SHOW, VARIABLE = "--show-forgotten", "VGID_SHOW_FORGOTTEN"


def withhold(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print where an error happened and its type, after those of the error that caused it; an exception hook.

    The message of an import error is shown, since it only says what is not installed.

    Args:
        kind: the type of the error.
        error: the error.
        trace: where it happened.
    """
    if SHOW in sys.argv or os.environ.get(VARIABLE) == "1":
        sys.__excepthook__(kind, error, trace)
        return
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        withhold(type(cause), cause, cause.__traceback__)
        print("\nIt caused this error:\n", file=sys.stderr)
    print("".join(traceback.format_tb(trace)), end="", file=sys.stderr)
    withheld = f"the message may repeat data, so it is withheld (shown with {SHOW}, or {VARIABLE}=1)"
    print(f"{kind.__module__}.{kind.__name__}: {error if isinstance(error, ImportError) else withheld}", file=sys.stderr)
