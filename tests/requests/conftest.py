from pathlib import Path

import pytest

from tests.conftest import made_once
from vgid.reading import read_json
from vgid.requests.files import sha256
from vgid.requests.forget import ForgetResult

from .runs import copy_run, honour, make_options


@pytest.fixture(scope="session")
def honoured(random_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ForgetResult]:
    """A request to a random model that was honoured: the folder around it, and the result."""
    root = made_once(tmp_path_factory, "honoured", lambda root: honour(make_options(root, random_folder)))
    record = root / "out" / "record.json"
    return root, ForgetResult(read_json(record), sha256(record), root / "out.key")


@pytest.fixture
def copied(honoured: tuple[Path, ForgetResult], tmp_path: Path) -> Path:
    """A copy of that folder, to change."""
    return copy_run(honoured[0], tmp_path / "copy")
