"""Stored runs, reused only where they depend on the same things, and comparisons that go on after a kill."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from tests.conftest import example
from vgid.comparison.datasets import SeedDataset
from vgid.comparison.plan import Entry, Plan, Tuned
from vgid.comparison.results import build_comparison
from vgid.comparison.runner import FinishedComparison, SeedRuns
from vgid.config import validate_config
from vgid.demo.data import DemoData
from vgid.demo.targets import TARGETS
from vgid.models.loading import load_model
from vgid.progress import Progress, Stages

FORGET = [example(n) for n in range(4)]
RETAIN = [example(n, answer="I do not know.") for n in range(10, 14)]
DATA = DemoData(FORGET, RETAIN, [], {"forget": FORGET[:2], "retain": RETAIN[:2]})
LOUD = {"training.learning_rate": 1e30, "training.max_grad_norm": 1e30, "training.warmup_steps": 0, "training.steps": 20}


class Watched(Stages):
    """Remembers the stages, and is killed in one of them."""

    def __init__(self, killed_in: str = "") -> None:
        super().__init__(quiet=True)
        self.names: list[str] = []
        self.killed_in = killed_in

    @contextmanager
    def __call__(self, name: str, key: str | None = None) -> Iterator[Progress]:
        if name == self.killed_in:
            raise KeyboardInterrupt
        self.names.append(name)
        with super().__call__(name, key) as tick:
            yield tick

    @property
    def unlearned(self) -> list[str]:
        return [name.split()[2].rstrip(",") for name in self.names if name.startswith("Unlearning")]


@pytest.fixture
def dataset(random_folder: Path, tmp_path: Path) -> SeedDataset:
    for name in ("base", "retrained"):
        shutil.copytree(random_folder, tmp_path / "seed" / name)
    config = validate_config({"method": {"name": "finetune"}, "adapter": None, "training": {"steps": 2, "retain_batch": 2}})
    identities = {name: {"model": name} for name in ("base", "retrained")}
    return SeedDataset(0, tmp_path / "seed", DATA, config, identities, {"base": 1.0, "retrained": 1.5})


def plan(*names: str, steps: int = 1, budget: str = "equal-steps") -> Plan:
    entries = tuple(Entry(name, name) for name in names)
    return Plan(TARGETS.get("tiny"), 2, 1, entries, (0,), budget, steps)  # type: ignore[arg-type]


def run(
    plan: Plan, dataset: SeedDataset, out: Path, stages: Watched | None = None, tuned: dict[str, Tuned] | None = None
) -> FinishedComparison:
    shown = {"forget": FORGET[:1]}
    runs = SeedRuns(plan, dataset, out, stages or Watched(), tuned or {}, shown).runs()
    return FinishedComparison(plan, runs, tuned or {}, shown)


def test_a_killed_comparison_goes_on(dataset: SeedDataset, tmp_path: Path) -> None:
    two = plan("ga", "manu")
    first, second, third = Watched(killed_in="Unlearning by manu, seed 0"), Watched(), Watched()
    with pytest.raises(KeyboardInterrupt):
        run(two, dataset, tmp_path / "out", first)
    assert sorted(path.stem for path in (tmp_path / "out").rglob("*.json")) == ["ga", "retrain", "untouched"]
    done = run(two, dataset, tmp_path / "out", second)
    assert first.unlearned == ["ga"] and second.unlearned == ["manu"]
    again = run(two, dataset, tmp_path / "out", third)
    assert not third.names and again.runs == done.runs
    assert [each.name for each in done.runs] == ["untouched", "retrain", "ga", "manu"]
    assert [each.steps for each in done.runs] == [0, 2, 1, 0] and done.runs[2].seconds > 0 and done.runs[2].memory > 0


def test_a_run_is_reused_only_where_all_is_the_same(dataset: SeedDataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(plan("ga"), dataset, out)

    def done_anew(plan: Plan, dataset: SeedDataset) -> list[str]:
        stages = Watched()
        run(plan, dataset, out, stages)
        return stages.unlearned

    assert done_anew(plan("ga"), dataset) == []
    assert done_anew(plan("ga", steps=2), dataset) == ["ga"]  # settings
    assert done_anew(plan("ga"), dataset) == ["ga"]  # and back
    assert done_anew(plan("ga"), replace(dataset, data=DATA._replace(forget=FORGET[:3]))) == ["ga"]  # rows
    assert done_anew(plan("ga"), replace(dataset, data=DATA._replace(splits={**DATA.splits, "retain": RETAIN}))) == ["ga"]  # questions
    file = out / "runs" / "seed-0" / "ga.json"
    values = json.loads(file.read_text())
    for part in ("code", "device"):
        file.write_text(json.dumps(values | {"identity": values["identity"] | {part: "other"}}))
        assert done_anew(plan("ga"), replace(dataset, data=DATA._replace(splits={**DATA.splits, "retain": RETAIN}))) == ["ga"]
    loaded = load_model(dataset.folder / "base")
    loaded.model.get_output_embeddings().weight.data += 1
    loaded.model.save_pretrained(dataset.folder / "base")
    assert done_anew(plan("ga"), replace(dataset, data=DATA._replace(splits={**DATA.splits, "retain": RETAIN}))) == ["ga"]  # model


def test_what_another_process_works_on_is_left_to_it_and_waited_for(dataset: SeedDataset, tmp_path: Path) -> None:
    stages = Watched()
    runs = SeedRuns(plan("ga", "manu"), dataset, tmp_path, stages, {}, {})
    lock = tmp_path / "runs" / "seed-0" / "ga.lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        runs.begin()
        assert stages.unlearned == ["manu"]
    assert [each.name for each in runs.runs()] == ["untouched", "retrain", "ga", "manu"]
    assert stages.unlearned == ["manu", "ga"]
    # Meanwhile another process has finished it: its stored run is read.
    late = Watched()
    others = SeedRuns(plan("ga", "manu"), dataset, tmp_path, late, {}, {}).runs()
    assert late.unlearned == [] and [each.answers for each in others] == [each.answers for each in runs.runs()]


def test_a_run_that_fails_is_reported_and_tried_again(dataset: SeedDataset, tmp_path: Path) -> None:
    tuned = {"ga": Tuned(LOUD, 0.5, 1)}
    finished = run(plan("ga", "manu"), dataset, tmp_path / "out", tuned=tuned)
    results = build_comparison(finished, {})
    assert "the loss is nan" in results["failed"]["ga"][0] and list(results["scores"]) and "ga" not in results["scores"]
    stages = Watched()
    run(plan("ga", "manu"), dataset, tmp_path / "out", stages, tuned)
    assert stages.unlearned == ["ga"]


def test_results_hold_nothing_that_was_said(dataset: SeedDataset, tmp_path: Path) -> None:
    finished = run(plan("ga"), dataset, tmp_path / "out")
    results = build_comparison(finished, {"ga": 1.0})
    text = json.dumps(results)
    assert results["schema"] == "vgid.comparison/1" and "Anna" not in text and FORGET[0].question not in text
    assert set(results["scores"]) == {"untouched", "retrain", "ga"} and results["pareto"] == ["ga"]
    assert results["splits"]["forget"]["ga"]["n"] == 2 and results["cost"]["retrain"]["seconds"] == 1.5
    assert set(finished.runs[2].said["forget"]) == {"row-0"}


@pytest.mark.slow
def test_equal_time_gives_others_the_seconds_of_vgid(dataset: SeedDataset, tmp_path: Path) -> None:
    vgid, ga = run(plan("vgid", "ga", budget="equal-time"), dataset, tmp_path / "out").runs[2:]
    assert vgid.steps == 1 and ga.steps >= 1 and ga.identity["seconds"] == vgid.seconds and vgid.identity["seconds"] is None
    assert ga.config is not None and ga.config["training"]["steps"] == ga.steps
