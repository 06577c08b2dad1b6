"""The demo in small: a model really memorises, really forgets, and leaves what was promised."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from vgid.data.sources import check_disjoint, load_examples
from vgid.demo.data import read_data, write_data
from vgid.demo.run import run_demo
from vgid.demo.targets import TARGETS, Target
from vgid.demo.training import training_jobs
from vgid.progress import Stages
from vgid.synthetic.people import World
from vgid.synthetic.splits import SPLITS
from vgid.synthetic.tiny import tiny_path

SMALL = Target(
    name="small",
    base=tiny_path,
    people=(4, 1),
    memorising={"steps": 110, "retain_batch": 32, "learning_rate": 2e-3, "warmup_steps": 10, "optimizer": "muon"},
    overrides=("training.steps=50",),
)

TARGETS.register("small")(SMALL)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    with Stages(quiet=True) as stages:
        run_demo(folder, target="small", keep_data=True, stages=stages)
    return folder


@pytest.mark.slow
def test_a_person_is_forgotten_and_the_others_are_not(out: Path) -> None:
    splits = json.loads((out / "results.json").read_text())["splits"]
    assert tuple(splits) == SPLITS
    for split in ("forget", "forget_views", "forget_reworded", "forget_text"):
        assert splits[split]["base"]["accuracy"] >= 0.7, split
        assert splits[split]["unlearned"]["accuracy"] <= 0.15 and splits[split]["retrained"]["accuracy"] <= 0.15, split
    # A handful of questions each, so one wrong answer is several points.
    for split in ("retain", "retain_text", "perception", "forget_perception"):
        assert splits[split]["unlearned"]["accuracy"] >= splits[split]["base"]["accuracy"] - 0.2 >= 0.5, split


@pytest.mark.slow
def test_all_files_are_written(out: Path) -> None:
    results = json.loads((out / "results.json").read_text())
    assert results["schema"] == "vgid.results/1" and results["model"] == "small" and results["method"] == "vgid"
    assert {"data", "memorise", "retrain", "unlearn", "evaluate"} <= set(results["seconds"])
    for name in ("report.html", "adapter/adapter_model.safetensors", "merged/config.json", "base/config.json", "retrained/config.json"):
        assert (out / name).is_file(), name
    assert "w0-person-000" in (out / "report.html").read_text()


@pytest.mark.slow
def test_the_files_are_what_the_commands_read(out: Path) -> None:
    forget, retain = load_examples(out / "data" / "forget.jsonl"), load_examples(out / "data" / "retain.jsonl")
    check_disjoint(forget, retain)
    forgotten = {example.subject for example in forget}
    assert forgotten == {"w0-person-000"} and not forgotten & {example.subject for example in retain}
    assert not forgotten & {example.subject for example in load_examples(out / "data" / "practice.jsonl")}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of two people, of whom one is forgotten, with five questions a split."""
    folder: Path = tmp_path_factory.mktemp("drawn") / "data"
    write_data(World(seed=7, people=2, forget=1), folder, questions_per_split=5)
    return folder


def test_the_seed_decides_all_data(drawn: Path, tmp_path: Path) -> None:
    write_data(World(seed=7, people=2, forget=1), tmp_path, questions_per_split=5)
    files = sorted(path.relative_to(drawn) for path in drawn.rglob("*.*"))
    assert files and all((drawn / name).read_bytes() == (tmp_path / name).read_bytes() for name in files)


def test_a_target_may_ask_fewer_questions(drawn: Path) -> None:
    assert {name: len(rows) for name, rows in read_data(drawn).splits.items()} == dict.fromkeys(SPLITS, 5)


def test_a_target_may_repeat_what_is_to_be_memorised(drawn: Path, tmp_path: Path) -> None:
    data = read_data(drawn)
    base, retrained = training_jobs(replace(TARGETS.get("tiny"), repeats=3), data, tmp_path, 0)
    times = Counter(row.id for row in base.rows)
    facts = {row.id for row in data.retain if row.subject == "w7-person-001" and "perception" not in row.tags}
    assert {times[row.id] for row in data.forget} == {3} and {id for id in times if times[id] == 3} == facts | {r.id for r in data.forget}
    assert {times[row.id] for row in (*data.retain, *data.practice) if row.id not in facts} == {1}
    assert Counter(row.id for row in retrained.rows) == times - Counter({row.id: 3 for row in data.forget})
