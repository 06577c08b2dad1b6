"""Stdout is for results: whatever libraries print while a run goes on is seen on stderr."""

import logging
import sys

import pytest

from vgid.progress import Stages


@pytest.mark.parametrize("quiet", [True, False])
def test_what_libraries_print_goes_to_stderr(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with Stages(quiet=quiet), Stages(quiet=quiet):
        print("no accelerator was found")
        handler = logging.StreamHandler(sys.stdout)  # as DeepSpeed does when it is imported
    handler.emit(logging.makeLogRecord({"msg": "later on"}))
    print("{}")
    said = capsys.readouterr()
    assert said.out == "{}\n" and said.err == "no accelerator was found\nlater on\n"
