"""Progress bars on stderr: one line per stage, with the remaining time; silent where nobody watches."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from types import TracebackType

from rich.console import Console, RenderableType
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

Progress = Callable[[int, int], None]
"""Told (done, total)."""


class Stages:
    """Shows and times the stages of a run; what libraries print meanwhile goes to stderr, since stdout is for results.

    Use as a context manager; `with stages("Unlearning") as tick: ...` runs one stage, and `seconds` holds how long each took.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        console = Console(stderr=True)
        if not console.is_terminal:
            console.width = 110  # a pipe has no width of its own
        self._quiet = quiet
        self._plain = None if quiet or console.is_terminal else console
        self._progress = Bars(
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> Stages:
        self._aside = redirect_stdout(sys.stderr)
        self._aside.__enter__()
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()
        self._aside.__exit__(kind, error, trace)

    def show(self, what: RenderableType) -> None:
        """Print something above the bars; nothing when quiet."""
        if not self._quiet:
            self._progress.console.print(what)

    @contextmanager
    def __call__(self, name: str, key: str | None = None) -> Iterator[Progress]:
        """Run one stage; its time is added to `seconds[key]`."""
        started = time.monotonic()
        task = self._progress.add_task(name, total=None)
        yield lambda done, total: self._progress.update(task, completed=done, total=total)
        taken = time.monotonic() - started
        self.seconds[key or name] = round(self.seconds.get(key or name, 0.0) + taken, 2)
        total = self._progress.tasks[task].total or 1
        self._progress.update(task, completed=total, total=total)
        if self._plain:
            self._plain.print(f"{name}: {taken:.1f} s")


@contextmanager
def stages_or_own(stages: Stages | None, *, quiet: bool = False) -> Iterator[Stages]:
    """The stages that a caller gave, or new ones that show progress bars for as long as the context lasts."""
    if stages is not None:
        yield stages
        return
    with Stages(quiet=quiet) as own:
        yield own


def launch_rank() -> int:
    """The number that a launcher gave this process; 0 is the first, and shows what there is to see."""
    return int(os.environ.get("RANK", "0"))


def quiet_libraries() -> None:
    """Keep libraries from writing into our output."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for library in ("transformers", "bitsandbytes"):
        logging.getLogger(library).setLevel(logging.ERROR)
    for library in ("transformers", "peft", "accelerate", "torch"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=library)


def log_to_stderr(*, errors_only: bool = False) -> None:
    """Show what vgid has to tell, such as rows left out or modules matched, beside the progress bars."""
    console = Console(stderr=True)
    handler: logging.Handler = logging.StreamHandler()  # a pipe has no width to wrap to
    if console.is_terminal:
        handler = RichHandler(console=console, show_time=False, show_level=False, show_path=False)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("vgid")
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.ERROR if errors_only else logging.INFO)


@contextmanager
def without_info_messages() -> Iterator[None]:
    """Keep what vgid has to tell, warnings left out, to itself: for what is done many times over."""
    log = logging.getLogger("vgid")
    before = log.level
    log.setLevel(max(logging.WARNING, log.getEffectiveLevel()))
    try:
        yield
    finally:
        log.setLevel(before)
