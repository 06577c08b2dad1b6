"""Progress bars on stderr: one line for each stage, with the remaining time; they appear in terminals and notebooks only."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from types import TracebackType

from rich.console import Console, RenderableType
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBars
from rich.text import Text

from vgid.curves import PLAIN

SECONDS_BETWEEN_LINES = 60
"""Least time between two lines about a stage that goes on, where there are no bars."""

Progress = Callable[[int, int], None]
"""A function that is called with `(done, total)`: how many units of a stage are done, and how many there are."""


class Bar:
    """The bar of one stage, a `Progress`.

    Attributes:
        trace: how the stage goes, in one line (`vgid.curves.trace`): below the bar, or from time to time where there are no bars.
    """

    def __init__(self, show: Callable[[int, int, str], None]) -> None:
        self._show = show
        self.trace = ""

    def __call__(self, done: int, total: int) -> None:
        """Move the bar to `done` of `total` units."""
        self._show(done, total, self.trace)


class _Bars(ProgressBars):
    """Bars, and below them what the stage that runs has to say."""

    trace = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.trace:
            yield Text(f"  {self.trace}", style="dim")


class Stages:
    """Shows and times the stages of a run; what libraries print meanwhile goes to stderr, since stdout is for results.

    Use it as a context manager: `with stages("Unlearning") as progress: ...` runs one stage. In a terminal, and in a notebook with
    ipywidgets, every stage has a bar; elsewhere it gets one line when it is done, and training one each minute before.

    Attributes:
        seconds: time that each stage took, by its key.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        notebook = in_notebook()
        # rich takes a notebook for one where widgets work; without ipywidgets it would show nothing but warnings.
        console = Console(stderr=True, force_jupyter=notebook, emoji=False)
        has_bars = console.is_terminal or notebook
        if not has_bars:
            console.width = 110  # a pipe has no width of its own
        self._quiet = quiet
        self._plain = None if quiet or has_bars else console
        self._bars = _Bars(
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not has_bars,
        )
        self.seconds: dict[str, float] = {}
        self._said = 0.0

    def __enter__(self) -> Stages:
        self._redirected = redirect_stdout(sys.stderr)
        self._redirected.__enter__()
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.refresh()  # in a notebook, stopping alone would leave the last stage unfinished
        self._bars.stop()
        self._redirected.__exit__(kind, error, trace)

    def show(self, what: RenderableType) -> None:
        """Print something above the bars; nothing when quiet."""
        if not self._quiet:
            self._bars.console.print(what)

    @contextmanager
    def __call__(self, name: str, key: str | None = None) -> Iterator[Bar]:
        """Run one stage, and add the seconds it took to `seconds[key]`.

        Args:
            name: the stage's title beside its bar.
            key: entry of `seconds`; None for the name.

        Yields:
            A function that moves the bar.
        """
        started = time.monotonic()
        task = self._bars.add_task(name, total=None)
        bar = Bar(lambda done, total, trace: self._move(name, task, done, total, trace))
        self._said = started
        yield bar
        taken = time.monotonic() - started
        self.seconds[key or name] = round(self.seconds.get(key or name, 0.0) + taken, 2)
        total = self._bars.tasks[task].total or 1
        self._bars.trace = ""
        self._bars.update(task, completed=total, total=total)
        if self._plain:
            self._plain.print(f"{name}: {taken:.1f} s")
        if bar.trace:
            self.show(Text(f"  {self._drawn(bar.trace)}"))

    def _move(self, name: str, task: TaskID, done: int, total: int, trace: str) -> None:
        self._bars.trace = self._drawn(trace)
        self._bars.update(task, completed=done, total=total)
        if self._plain and trace and time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            self._plain.print(f"{name}: {done}/{total}, {self._bars.trace}", markup=False, highlight=False)

    def _drawn(self, trace: str) -> str:
        return trace if self._bars.console.encoding.startswith("utf") else trace.translate(PLAIN)


@contextmanager
def stages_or_own(stages: Stages | None, *, quiet: bool = False) -> Iterator[Stages]:
    """Give a caller's stages, or without any, new ones that show progress for the time of the `with` statement."""
    if stages is not None:
        yield stages
        return
    with Stages(quiet=quiet) as own:
        yield own


def in_notebook() -> bool:
    """Return whether this process is a notebook's kernel that can show widgets (Jupyter, Colab)."""
    # A kernel has imported IPython already; to import it here would cost every other process its start-up time.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel") and find_spec("ipywidgets") is not None


def launch_rank() -> int:
    """Return the number that a launcher gave this process; process 0 is the first, and the only one that shows anything."""
    return int(os.environ.get("RANK", "0"))


def launch_count() -> int:
    """Return the number of processes that a launcher started, this one among them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


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
    """Show vgid's log messages, such as rows left out or modules matched, on stderr beside the progress bars."""
    console = Console(stderr=True, emoji=False)
    handler: logging.Handler = logging.StreamHandler()  # a pipe has no width to wrap to
    if console.is_terminal:
        handler = RichHandler(console=console, show_time=False, show_level=False, show_path=False)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("vgid")
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.ERROR if errors_only else logging.INFO)


@contextmanager
def without_info_messages() -> Iterator[None]:
    """Log warnings and errors only, for work that is done many times over."""
    log = logging.getLogger("vgid")
    before = log.level
    log.setLevel(max(logging.WARNING, log.getEffectiveLevel()))
    try:
        yield
    finally:
        log.setLevel(before)
