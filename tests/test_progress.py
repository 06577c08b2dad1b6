"""Stdout is for results: whatever libraries print while a run goes on is seen on stderr. Bars appear where somebody can see them."""

import logging
import sys
from types import ModuleType, SimpleNamespace

import pytest

from vgid import progress
from vgid.progress import Stages, in_notebook


@pytest.mark.parametrize("quiet", [True, False])
def test_what_libraries_print_goes_to_stderr(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with Stages(quiet=quiet), Stages(quiet=quiet):
        print("no accelerator was found")
        handler = logging.StreamHandler(sys.stdout)  # as DeepSpeed does when it is imported
    handler.emit(logging.makeLogRecord({"msg": "later on"}))
    print("{}")
    said = capsys.readouterr()
    assert said.out == "{}\n" and said.err == "no accelerator was found\nlater on\n"


def kernel(monkeypatch: pytest.MonkeyPatch, shell: object, widgets: bool) -> None:
    """Pretend to be a process with this IPython shell, with or without ipywidgets."""
    ipython = ModuleType("IPython")
    vars(ipython)["get_ipython"] = lambda: shell
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setattr(progress, "find_spec", lambda name: SimpleNamespace() if widgets else None)


@pytest.mark.parametrize(
    ("shell", "widgets", "bars"),
    [
        (SimpleNamespace(kernel=None), True, True),  # a notebook
        (SimpleNamespace(kernel=None), False, False),  # a notebook that cannot show widgets
        (SimpleNamespace(), True, False),  # IPython in a pipe
        (None, True, False),  # IPython is imported, and not what runs
    ],
)
def test_a_notebook_has_bars(shell: object, widgets: bool, bars: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel(monkeypatch, shell, widgets)
    assert in_notebook() is bars
    stages = Stages()
    assert stages._bars.disable is not bars and stages._bars.console.is_jupyter is bars
    assert Stages(quiet=True)._bars.disable


def test_a_process_without_ipython_is_not_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not in_notebook() and Stages()._bars.disable


def test_stages_without_bars_say_how_long_they_took(capsys: pytest.CaptureFixture[str]) -> None:
    with Stages() as stages:
        for _ in range(2):
            with stages("Unlearning", "unlearn") as tick:
                tick(1, 2)
    assert list(stages.seconds) == ["unlearn"] and capsys.readouterr().err.count("Unlearning: 0.0 s") == 2


def test_what_a_stage_says_of_itself_is_shown_each_minute_and_at_its_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter([0.0, 1.0, 60.0, 61.0, 90.0, 100.0])  # begun; one line a minute at most: read again where one is written; done
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with Stages() as stages, stages("Unlearning") as bar:
        for done in (1, 2, 3):
            bar.trace = f"forget \u2588\u2581 {done}"
            bar(done, 4)
    said = capsys.readouterr().err.splitlines()
    assert [line.replace("\u2588\u2581", "#_") for line in said] == ["Unlearning: 2/4, forget #_ 2", "Unlearning: 100.0 s", "  forget #_ 3"]


def test_below_the_bars_is_what_the_stage_says(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = Stages(quiet=True)
    with stages("Unlearning") as bar:
        bar.trace = "forget \u2588\u2581 2"
        bar(1, 4)
        _, line = stages._bars.get_renderables()
        assert str(line).strip() == stages._drawn(bar.trace)
    assert len(list(stages._bars.get_renderables())) == 1
