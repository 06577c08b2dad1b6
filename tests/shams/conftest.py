"""One world for each seed, shared by all shams.

`VGID_SHAM_SEEDS=0,1` names the seeds. `VGID_SHAM_FOLDER` keeps `seed-0`, `seed-1` ...; folders of `vgid demo --keep-data` may stand there.
"""

import os
from pathlib import Path

import pytest

from .world import SmallWorld

SEEDS = [int(seed) for seed in os.environ.get("VGID_SHAM_SEEDS", "0").split(",")]


@pytest.fixture(scope="session", params=SEEDS, ids=[f"seed{seed}" for seed in SEEDS])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    """People and models of one seed."""
    kept = os.environ.get("VGID_SHAM_FOLDER")
    made = SmallWorld(request.param, (Path(kept) if kept else tmp_path_factory.mktemp("shams")) / f"seed-{request.param}")
    made.make()
    return made
