"""Linters of the extra `lint`; what needs one is skipped where it is not installed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT


def lint(tool: str, *arguments: str) -> None:
    """Run a linter at the top of the repository; it must find nothing."""
    found = shutil.which(tool, path=str(Path(sys.executable).parent)) or shutil.which(tool)
    if found is None:
        pytest.skip(f'{tool} is installed by the extra: pip install -e ".[lint]"')
    done = subprocess.run([found, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
