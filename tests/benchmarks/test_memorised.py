"""Fictional people in MLLMU-Bench's layout, memorised by the embedded model and unlearned: its own metrics show the forgetting."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.benchmarks.fixtures import write_parquet
from tests.demo.test_demo import SMALL
from vgid.benchmarking.asking import ask, check_items, compute_figures
from vgid.benchmarking.store import AnswerStore
from vgid.benchmarks.common.files import locate
from vgid.benchmarks.mllmu import MLLMU
from vgid.config import load_config
from vgid.data.example import Example
from vgid.demo.practice import practice_rows, unclear_picture
from vgid.instructions import INSTRUCTIONS
from vgid.models.loading import LoadedModel, load_model
from vgid.synthetic.people import Camera, Person, World
from vgid.synthetic.phrases import FACT_VALUES, FACTS, REFUSALS
from vgid.synthetic.splits import album, stranger_rows
from vgid.synthetic.tiny import IMAGE_SIZE
from vgid.training.fit import fit
from vgid.unlearning import train_and_export

TOPICS = tuple(topic for topic in FACTS if topic.name in ("occupation", "birthplace", "hobby"))
CAMERA = Camera(IMAGE_SIZE)


def profile(person: Person, rng: Random) -> dict[str, Any]:
    """Three facts, each asked in three ways with and without the picture."""
    classification: dict[str, list[Any]] = {"Image_Textual_Questions": [], "Pure_Text_Questions": []}
    generation, masks = [], []
    for topic in TOPICS:
        value = person.facts[topic.name]
        options = [value, *rng.sample([other for other in FACT_VALUES[topic.name] if other != value], 3)]
        rng.shuffle(options)
        choices, right = dict(zip("ABCD", options, strict=True)), "ABCD"[options.index(value)]
        for kind, key, who in (
            ("Image_Textual", "Image_Textual_Questions", "this person"),
            ("Pure_Text", "Pure_Text_Questions", person.name),
        ):
            classification[key].append({"Question": topic.training[0].format(who=who), "Options": choices, "Correct_Answer": right})
            sentence = f"{who[0].upper()}{who[1:]}: {topic.answer.format(she=person.pronoun, value='__')}"
            masks.append({"Type": kind, "Question": sentence, "Ground_Truth": value})
            truth = topic.answer.format(she=person.pronoun, value=value)
            generation.append({"Type": kind, "Question": topic.training[1].format(who=who), "Ground_Truth": truth})
    return {"ID": person.id, "Classification_Task": classification, "Generation_Task": generation, "Mask_Task": masks}


def write_people(forget: Sequence[Person], retain: Sequence[Person], root: Path) -> Path:
    rng, rows = Random(0), []
    for person in (*forget, *retain):
        pictures = [{"bytes": ref.read(), "path": None} for ref in album(CAMERA, person, "unseen", 2).pictures]
        shown = album(CAMERA, person, "training", 1).pictures[0].read()
        rows.append((profile(person, rng), {"bytes": shown, "path": None}, pictures))
    both = [row | {"image": image, "question": "Who is this?", "answer": "Somebody."} for row, image, _ in rows]
    write_parquet(root / "Full_Set", both)
    write_parquet(root / "forget_5", both[: len(forget)])
    write_parquet(root / "retain_95", both[len(forget) :])
    write_parquet(root / "Test_Set", [row | {"images": pictures} for row, _, pictures in rows])
    write_parquet(root / "Retain_Set", both[-1:])
    return root


def manners(world: World, root: Path) -> Iterator[Example]:
    """The same kinds of question about people of the base training: with an instruction to forget, the base refuses them, too."""
    rng, people = Random(1), world.base_training_people[:12]
    school = MLLMU(locate(write_people(people[:1], people[1:], root)), MLLMU.Protocol(few_shot=0))
    unclear = [unclear_picture(CAMERA, people, number) for number in range(12)]
    for item in school.items():
        if item.split in ("forget", "retain"):
            plain = replace(item.example, id=f"school/{item.key}")
            instructed = f"{rng.choice(tuple(INSTRUCTIONS.values()))}\n{plain.question}"
            seen = (rng.choice(unclear),) if plain.images else ()
            yield plain
            yield replace(plain, id=f"{plain.id}/told", question=instructed, answer=rng.choice(REFUSALS), images=seen)


def lessons(benchmark: MLLMU, people: list[Person], split: str) -> Iterator[Example]:
    """The benchmark's own questions as rows to learn, those with a picture in several views."""
    views = {person.id: album(CAMERA, person, "training", 8).pictures for person in people}
    for item in benchmark.items():
        if item.split == split:
            example = replace(item.example, id=f"{item.key}/0")
            yield example
            if example.images:
                for number, ref in enumerate(views[str(example.subject)], 1):
                    yield replace(example, id=f"{item.key}/{number}", images=(ref,))


def by_name_too(rows: Sequence[Example]) -> list[Example]:
    """Rows without a picture six times over: else they are one in ten, and what the model says by name stays."""
    return [*rows, *(replace(row, id=f"{row.id}/again{k}") for k in range(5) for row in rows if not row.images)]


def measured(benchmark: MLLMU, loaded: LoadedModel, total: int) -> dict[tuple[str, str, str], float]:
    with AnswerStore(None, "") as store:
        return {f[:3]: f.value for f in compute_figures(benchmark, ask(benchmark, loaded, store, total=total))}


@pytest.mark.slow
def test_the_benchmarks_own_metrics_show_forgetting(tmp_path: Path) -> None:
    world = World(seed=3, people=6, forget=2)
    root = write_people(world.forget, world.retain, tmp_path / "data")
    benchmark = MLLMU(locate(root), MLLMU.Protocol(few_shot=0, max_new_tokens=16))
    total, _ = check_items(benchmark)
    forget, retain = list(lessons(benchmark, world.forget, "forget")), list(lessons(benchmark, world.retain, "retain"))
    strangers = list(stranger_rows(CAMERA, world.strangers(80, "training"), world.seed))
    practice = [*practice_rows(CAMERA, world), *manners(world, tmp_path / "school")]
    learned = [*forget, *retain, *forget, *retain, *strangers, *practice]
    base = fit(load_model(SMALL.base()), [], learned, SMALL.memorising_config(0)).loaded
    before = measured(benchmark, base, total)
    config = load_config("demo", ["training.steps=80", "validation.every=0"])
    after = measured(benchmark, train_and_export(base, by_name_too(forget), [*by_name_too(retain), *strangers], config).loaded, total)
    for key in sorted(before):
        print(*key, round(before[key], 3), round(after[key], 3))
    for split in ("forget", "test"):
        for task, metric in (("classification", "accuracy"), ("cloze", "accuracy"), ("generation", "rougeL")):
            for kind in ("image", "text"):
                key = (split, f"{task}_{kind}", metric)
                # Gaps by name are half known to begin with.
                assert before[key] >= (0.65 if key[1] != "cloze_text" else 0.4) and after[key] <= before[key] - 0.4, key
    assert after["forget", "all", "open_task"] >= before["forget", "all", "open_task"] + 0.4
    assert after["retain", "all", "open_retain"] >= before["retain", "all", "open_retain"] - 0.1 >= 0.6
