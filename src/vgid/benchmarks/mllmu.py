"""MLLMU-Bench (arXiv 2410.22108): fictional profiles to forget, other profiles and celebrities to keep.

Each profile is asked about with and without its picture, by options (classification), by a gap (cloze) and freely (generation). The data
set comes in two layouts, told apart by their columns: the benchmark (hub data set `MLLMMU/MLLMU-Bench`) and the training splits (hub model
repository `MLLMMU/baseline_train_split`), which have the questions to train on as JSON and none to evaluate.

Prompts are in our words; what they ask for, the shots in front of them, answer lengths and how answers are read are the published ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from statistics import fmean
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from vgid.benchmarks.base import BENCHMARKS, Answer, Answered, Benchmark, Figure, Item, Metric, PublishedProtocol, by_task
from vgid.benchmarks.common.files import Source, columns, need_shards, parquet_rows, picture
from vgid.benchmarks.common.values import SourceRow, mapping, records, text
from vgid.data.example import Example, ImageRef
from vgid.errors import DataError
from vgid.evaluation.overlap import bleu, contains, first_letter, rouge
from vgid.evaluation.statistics import GroupedValues, combined_ci

MAIN = {"classification": "accuracy", "cloze": "accuracy", "generation": "rougeL"}
TASKS = ("Classification_Task", "Generation_Task", "Mask_Task")
KINDS = {"Image_Textual": "image", "Pure_Text": "text"}
LETTER = "Reply with the letter of the right option and nothing else."
BLANK = "Reply with the words that belong in the place of [Blank] and nothing else."
SENTENCE = {
    "image": "From what you know, reply accurately in one English sentence.",
    "text": "From what you know, reply in one English sentence.",
}


class Shot(NamedTuple):
    """A question with its answer, shown before the one that is asked."""

    text: str
    picture: ImageRef | None


class Asked(NamedTuple):
    """A question of a profile: its task, the words, the right answer and options."""

    task: str
    kind: str
    number: int
    question: str
    answer: str
    options: Mapping[str, str]


@BENCHMARKS.register("mllmu")
class MLLMU(Benchmark):
    """MLLMU-Bench; `forget` is a percentage."""

    name = "mllmu"
    title = "MLLMU-Bench"
    paper = "arXiv 2410.22108"
    version = 1
    source = Source("MLLMMU/MLLMU-Bench")
    training = Source("MLLMMU/baseline_train_split", "model")
    forget_sets = ("5", "10", "15")
    main_metrics = ("accuracy", "rougeL")
    metrics: ClassVar[Mapping[str, Metric]] = {
        "accuracy": Metric("up", "share of right answers"),
        "rouge1": Metric("up", "ROUGE-1 F1 with stemmer"),
        "rouge2": Metric("up", "ROUGE-2 F1 with stemmer"),
        "rougeL": Metric("up", "ROUGE-L F1 with stemmer"),
        "bleu": Metric("up", "sentence BLEU, smoothing method 1"),
        "open_task": Metric(
            "up", "arXiv 2610.10358: mean of 1 - cloze, 1 - classification, 1 - ROUGE-L with pictures, forget and test", "up"
        ),
        "open_retain": Metric("up", "arXiv 2610.10358: mean of cloze, classification and ROUGE-L over retained profiles and celebrities"),
    }

    class Protocol(PublishedProtocol):
        """How it asks.

        Attributes:
            max_new_tokens: length of an answer.
            few_shot: people of the split whose questions are shown first, with answers; they are not asked about themselves.
            shots_per_person: how many of their questions are shown; None shows all.
            seed: draws those people, and the test picture.
            tasks: what is asked.
        """

        max_new_tokens: int = Field(default=50, ge=1)
        few_shot: int = Field(default=1, ge=0)
        shots_per_person: int | None = Field(default=None, ge=1)
        seed: int = Field(default=0, ge=0)
        tasks: tuple[Literal["classification", "cloze", "generation"], ...] = ("classification", "cloze", "generation")

    @property
    def training_splits(self) -> tuple[str, str]:
        """Names of the forget and the retain split."""
        return f"forget_{self.forget_set}", f"retain_{100 - int(self.forget_set)}"

    def rows(self, split: str) -> Iterator[SourceRow]:
        """Rows of either layout."""
        files = need_shards(self.place.root, split)
        training = "metadata" in columns(files[0])
        required = ("ID", "image", "metadata") if training else ("ID", "image", "question", "answer")
        yield from parquet_rows(files, required)

    def expand(self, row: SourceRow, split: str) -> Iterator[Example]:
        """The questions of a profile, all about one picture."""
        where, values, _ = row
        person, image = text(values, "ID", where), picture(values.get("image"), self.place, where)
        if "metadata" not in values:
            yield Example(
                f"{split}/{person}", text(values, "question", where), text(values, "answer", where), (image,), person, where=where
            )
            return
        for number, pair in enumerate(records(values["metadata"], "metadata", where)):
            question, answer = text(pair, "Question", where), text(pair, "Answer", where)
            yield Example(f"{split}/{person}/{number}", question, answer, (image,), person, where=where)

    # -- evaluation -------------------------------------------------------------------------------------------------------

    def items(self) -> Iterator[Item]:
        """Forgotten profiles, the same in other pictures, retained profiles, celebrities."""
        root, (forget, retain) = self.place.root, self.training_splits
        forgotten = self._ids(forget)
        yield from self._split("forget", need_shards(root, forget), forgotten, forgotten)
        yield from self._split("test", need_shards(root, "Test_Set"), forgotten, forgotten)
        yield from self._split("retain", need_shards(root, retain), self._ids(retain), None)
        yield from self._split("celebrity", need_shards(root, "Retain_Set"), (), None)

    def measure(self, item: Item, answer: Answer) -> Mapping[str, float]:
        """Classification by the first letter, cloze by substring, generation by overlap."""
        if item.task.startswith("classification"):
            return {"accuracy": float(first_letter(answer.said, dict(item.options)) == item.example.answer)}
        if item.task.startswith("cloze"):
            return {"accuracy": float(contains(answer.said, item.example.answer))}
        overlap = rouge(answer.said, item.example.answer)
        return {**{name: score.f1 for name, score in overlap.items()}, "bleu": bleu(answer.said, item.example.answer)}

    def aggregates(self, answered: Sequence[Answered], reference: Sequence[Answered] | None, seed: int) -> list[Figure]:
        """The parts of Open-MMUnlearning's forget quality and model utility that this benchmark's own tasks make up."""
        groups = by_task(answered)
        made = []
        for metric, splits, kinds in (
            ("open_task", ("forget", "test"), ("image",)),
            ("open_retain", ("retain", "celebrity"), ("image", "text")),
        ):
            keys = [(split, f"{task}_{kind}") for split in splits for task in MAIN for kind in kinds]
            parts = [self._part(groups[key], MAIN[key[1].rpartition("_")[0]]) for key in keys if key in groups]
            if len(parts) == len(keys):
                value, (low, high) = combined_ci(parts, fmean, seed=seed)
                bounds = (1 - high, 1 - low) if metric == "open_task" else (low, high)
                n = sum(len(part.values) for part in parts)
                made.append(Figure(splits[0], "all", metric, 1 - value if metric == "open_task" else value, *bounds, n))
        return made

    def _part(self, answered: Sequence[Answered], metric: str) -> GroupedValues:
        values = [self.measure(*each)[metric] for each in answered]
        return GroupedValues(values, [each.person for each in answered], answered[0].item.split)

    def notes(self) -> list[str]:
        """Where one cannot follow the released script to the letter."""
        return [
            "All pictures stand before the text, as chat templates put them; the released script puts each before its own question.",
            "The released script draws shots and test pictures anew in each run; here they follow from `seed`.",
        ]

    def _ids(self, split: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(text(row.values, "ID", row.where) for row in parquet_rows(need_shards(self.place.root, split), ("ID",))))

    def _split(self, split: str, files: Any, people: tuple[str, ...], only: tuple[str, ...] | None) -> Iterator[Item]:
        image = "images" if "images" in columns(files[0]) else "image"
        # Celebrities are not in the full set of profiles, so that the published script finds no shots for them.
        shown = {task: self._shots(split, task, people) for task in self.protocol.tasks if task != "generation" and people}
        asked = False
        for row in parquet_rows(files, ("ID", image, *TASKS)):
            person = text(row.values, "ID", row.where)
            if only is not None and person not in only:
                continue
            ref = self._picture(row, image, person)
            for question in self._questions(row):
                shots = shown.get(question.task, ({}, ()))
                if person not in shots[1]:
                    asked = True
                    yield self._item(split, person, question, ref, shots[0].get(question.kind, []), row.where)
        if not asked:
            raise DataError(
                f"there is nobody to ask about in the {split} split",
                where=files[0].parent,
                expected="people besides those whose questions are shown first",
                got=f"{len(people)} people",
                fix="set few_shot=0",
            )

    def _picture(self, row: SourceRow, column: str, person: str) -> ImageRef:
        value = row.values[column]
        if column == "images":
            value = value.tolist() if hasattr(value, "tolist") else value
            if not isinstance(value, list) or not value:
                raise DataError("images has the wrong type", where=row.where, expected="a list of images", got=type(value).__name__)
            value = value[Random(f"{self.protocol.seed}/{person}").randrange(len(value))]
        return picture(value, self.place, row.where)

    def _questions(self, row: SourceRow) -> Iterator[Asked]:
        where, values, _ = row
        tasks = self.protocol.tasks
        if "classification" in tasks:
            choices = mapping(values["Classification_Task"], "Classification_Task", where)
            for name, kind in (("Image_Textual_Questions", "image"), ("Pure_Text_Questions", "text")):
                if name not in choices:
                    raise DataError(f"Classification_Task has no {name}", where=where, expected=name, got=f"fields {', '.join(choices)}")
                for number, each in enumerate(records(choices[name], name, where)):
                    yield _choice(each, kind, number, where)
        for task, column in (("cloze", "Mask_Task"), ("generation", "Generation_Task")):
            if task in tasks:
                for number, each in enumerate(records(values[column], column, where)):
                    yield Asked(
                        task, _kind(each, column, where), number, text(each, "Question", where), text(each, "Ground_Truth", where), {}
                    )

    def _shots(self, split: str, task: str, people: tuple[str, ...]) -> tuple[dict[str, list[Shot]], tuple[str, ...]]:
        """Shots by kind, and whose they are."""
        count = min(self.protocol.few_shot, len(people))
        chosen = tuple(Random(f"{self.protocol.seed}/{split}/{task}").sample(sorted(people), count))
        shots: dict[str, list[Shot]] = {"image": [], "text": []}
        if not chosen:
            return shots, ()
        column = {"classification": "Classification_Task", "cloze": "Mask_Task"}[task]
        for row in parquet_rows(need_shards(self.place.root, "Full_Set"), ("ID", "image", *TASKS)):
            if text(row.values, "ID", row.where) in chosen:
                ref = picture(row.values["image"], self.place, row.where)
                for each in self._questions(row):
                    if each.task == task:
                        shots[each.kind].append(
                            Shot(f"{_words(each)}\nCorrect answer: {each.answer}\n\n", ref if each.kind == "image" else None)
                        )
        if not shots["image"] and not shots["text"]:
            raise DataError(
                "the people to be shown first are not in Full_Set", where=self.place.root, expected=f"their {column}", fix="set few_shot=0"
            )
        return {kind: each[: self.protocol.shots_per_person] for kind, each in shots.items()}, chosen

    def _item(self, split: str, person: str, asked: Asked, ref: ImageRef, shots: list[Shot], where: str) -> Item:
        closing = {"classification": LETTER, "cloze": BLANK, "generation": SENTENCE[asked.kind]}[asked.task]
        pictures = tuple(shot.picture for shot in shots if shot.picture is not None)
        key = f"{split}/{asked.task}_{asked.kind}/{person}/{asked.number}"
        example = Example(
            id=key,
            question="".join(shot.text for shot in shots) + f"{_words(asked)}\n{closing}",
            answer=asked.answer,
            images=(*pictures, ref) if asked.kind == "image" else (),
            subject=person,
            where=where,
        )
        return Item(key, split, f"{asked.task}_{asked.kind}", example, self.protocol.max_new_tokens, options=tuple(asked.options.items()))


def _kind(each: Mapping[str, Any], column: str, where: str) -> str:
    kind = text(each, "Type", where)
    if kind not in KINDS:
        raise DataError(f"{column} has a question of unknown type", where=where, expected=" or ".join(KINDS), got=kind)
    return KINDS[kind]


def _choice(each: Mapping[str, Any], kind: str, number: int, where: str) -> Asked:
    options = {str(k): str(v) for k, v in mapping(each.get("Options"), "Options", where).items() if v is not None}
    right = text(each, "Correct_Answer", where)[:1].upper()
    if right not in options:
        raise DataError("Correct_Answer is none of the options", where=where, expected=f"one of {', '.join(options)}", got="another letter")
    return Asked("classification", kind, number, text(each, "Question", where), right, options)


def _words(asked: Asked) -> str:
    """The question as it is put: with its options, or with its gap marked."""
    if asked.task == "cloze":
        return asked.question.replace("__", "[Blank]")
    return "\n".join([asked.question, *(f"{letter}: {option}" for letter, option in asked.options.items())])
