from pathlib import Path

import pytest

from vgid.requests.command import Finished

from .runs import copy_run, honour, make_order


@pytest.fixture(scope="session")
def honoured(random_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    """A request to a random model, honoured: the folder around it, and what came of it."""
    root = tmp_path_factory.mktemp("honoured")
    return root, honour(make_order(root, random_folder))


@pytest.fixture
def copied(honoured: tuple[Path, Finished], tmp_path: Path) -> Path:
    """A copy of that folder, to change."""
    return copy_run(honoured[0], tmp_path / "copy")
