"""The command line: parse, call one public function, show. Heavy imports wait until a command runs.

One file for each group of commands.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import typer
from rich.console import Console

from vgid.commands import (
    audit,
    bench,
    compare,
    config,
    data,
    demo,
    evaluate,
    experiment,
    export,
    finetune,
    forget,
    inspect,
    methods,
    metrics,
    record,
    unlearn,
)
from vgid.commands.options import RENAMED
from vgid.commands.root import app
from vgid.commands.show import plain
from vgid.commands.withheld import withhold
from vgid.errors import ConfigError, RunError, VgidError
from vgid.progress import launch_count, launch_rank, log_to_stderr, quiet_libraries
from vgid.reading import check_text

__all__ = [
    "app",
    "audit",
    "bench",
    "compare",
    "config",
    "data",
    "demo",
    "evaluate",
    "experiment",
    "export",
    "finetune",
    "forget",
    "inspect",
    "main",
    "methods",
    "metrics",
    "record",
    "unlearn",
]


IN_SEVERAL = ("preflight", "unlearn", "finetune", "evaluate", "verify-export")
"""Commands that a launcher may start in several processes."""
IN_PARTS = {
    "forget": "under a launcher, run its steps one by one; see docs/forget.md",
    "retrain": "under a launcher, use vgid finetune --without",
    "bench": "use vgid unlearn under the launcher, then vgid evaluate --benchmark without it",
}
"""What to do with other commands in several processes, where it is not the same in one."""


BAD_PATH = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR)
"""What the system says of a path that can be nobody's: such a path is bad input, and not a run that failed."""


class _Stopped(SystemExit):
    """A signal that came while nothing had to be finished first."""


def _stop(number: int, _: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)
    raise _Stopped(128 + number)


def main() -> None:
    """Run the command line; a `VgidError` becomes one clear message and its exit code.

    All that is written can be read by its owner only, and tracebacks do not repeat data.
    """
    os.umask(0o077)
    sys.excepthook = withhold
    # Threads without work sleep; by default they run in circles, at the cost of everything else. PyTorch reads this when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    quiet_libraries()
    log_to_stderr(errors_only=launch_rank() > 0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        for word in sys.argv[1:]:
            check_text(word, ConfigError)
            _check_empty(word)
        _check_renamed(sys.argv[1:])
        _check_launched(sys.argv[1:])
        typer.main.get_command(app)(standalone_mode=True)  # typer itself would put its own hook in place
    except VgidError as error:
        if launch_rank() == 0 or error.exit_code != VgidError.exit_code:  # all processes find the same fault with their input
            _tell(str(error))
        sys.exit(error.exit_code)
    except OSError as error:  # a full disk or missing permission, wherever it strikes
        if error.errno is None:
            raise
        bad, fix = error.errno in BAD_PATH, "check permissions and free space, then run the command again"
        _tell(f"{error.filename or 'the system'}: {error.strerror}\n  fix: {'check the path' if bad else fix}")
        sys.exit(VgidError.exit_code if bad else RunError.exit_code)
    except _Stopped as stopped:
        name = signal.Signals(int(str(stopped)) - 128).name
        others = "`forget`, `bench`, `compare`, `evaluate --benchmark`, `metrics meta`, `experiment ablate` and `sequence` by themselves"
        _tell(f"stopped by {name}; `vgid unlearn` and `finetune` go on with --resume, {others}")
        raise


def _check_empty(word: str) -> None:
    """An empty path would stand for the folder that the command is started in, and whatever lies there.

    Raises:
        ConfigError: an argument, or the value of an option, is empty.
    """
    option = re.fullmatch(r"(--[a-z0-9-]+)=\s*", word)
    if option or not word.strip():
        where = option[1] if option else None
        raise ConfigError("an argument is empty", where=where, expected="a value", got="nothing", fix="is a variable of the shell not set?")


def _check_renamed(words: Sequence[str]) -> None:
    """Raises:
    ConfigError: an option is called something else now.
    """
    for word in words:
        old = word.partition("=")[0]
        if old in RENAMED:
            raise ConfigError("the option has another name now", got=old, fix=f"use {RENAMED[old]}")
    if ("--set" in words and words[:1] == ["evaluate"]) or (words[:1] == ["data"] and "--set" in words):
        raise ConfigError("the option has another name here", got="--set", fix="use --protocol for a benchmark's settings")


def _check_launched(words: Sequence[str]) -> None:
    """Raises:
    ConfigError: a launcher started several processes of a command that runs in one.
    """
    name = next((word for word in words if not word.startswith("-")), None)
    if name is None or name in IN_SEVERAL or launch_count() == 1:
        return
    raise ConfigError(
        f"vgid {name} runs in one process",
        expected=f"one process; in several run {', '.join(IN_SEVERAL)}",
        got=f"{launch_count()} processes",
        fix=IN_PARTS.get(name, "start it without the launcher"),
    )


def _tell(text: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False, emoji=False).print(f"[bold red]error:[/] {plain(text)}")
