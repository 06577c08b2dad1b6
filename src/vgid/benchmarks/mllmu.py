"""MLLMU-Bench (arXiv 2410.22108): fictional profiles to forget, other profiles and celebrities to keep.

Each profile is asked about with and without its image: by options (classification), by a gap (cloze) and freely (generation). The dataset
comes in two layouts with different columns: the benchmark (hub dataset `MLLMMU/MLLMU-Bench`), and the training splits (hub model repository
`MLLMMU/baseline_train_split`), which hold the questions to train on as JSON and none to evaluate.

The wording of prompts is ours. What they ask for, the examples in front of them (few shots), the length of answers and the way answers are
read follow the published script.
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

MAIN_METRIC = {"classification": "accuracy", "cloze": "accuracy", "generation": "rougeL"}
"""The metric of each task that Open-MMUnlearning (arXiv 2610.10358) averages."""
TASKS = ("Classification_Task", "Generation_Task", "Mask_Task")
"""Columns that hold questions to evaluate."""
KINDS = {"Image_Textual": "image", "Pure_Text": "text"}
"""The published names of questions with the image, and by the person's name."""
LETTER = "Reply with the letter of the right option and nothing else."
BLANK = "Reply with the words that belong in the place of [Blank] and nothing else."
"""The last line of a classification, and of a cloze."""
SENTENCE = {
    "image": "From what you know, reply accurately in one English sentence.",
    "text": "From what you know, reply in one English sentence.",
}
"""The last line of a free question, with the image and by name."""


class Shot(NamedTuple):
    """A question with its answer that stands before the question to answer (few-shot).

    Attributes:
        text: question and answer.
        picture: the person's image; None for a question by name.
    """

    text: str
    picture: ImageRef | None


class ProfileQuestion(NamedTuple):
    """A question about a profile.

    Attributes:
        task: `classification`, `cloze` or `generation`.
        kind: `image`, or `text` for a question by name.
        number: number of the question within its column, from 0.
        question: text of the question.
        answer: the right answer; of a classification its letter.
        options: choices by letter; empty for the other tasks.
    """

    task: str
    kind: str
    number: int
    question: str
    answer: str
    options: Mapping[str, str]


@BENCHMARKS.register("mllmu")
class MLLMU(Benchmark):
    """MLLMU-Bench: options, gaps and free answers about fictional profiles, with an image and by name.

    `forget_set` is a percentage of the profiles.
    """

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
        """How MLLMU-Bench asks.

        Attributes:
            max_new_tokens: length of an answer, in tokens.
            few_shot: number of people of the split whose questions and answers stand before each question; these people are left out.
            shots_per_person: how many of their questions stand there; None for all.
            seed: random seed of the choice of these people, and of the test image.
            tasks: the tasks to ask.
        """

        max_new_tokens: int = Field(default=50, ge=1)
        few_shot: int = Field(default=1, ge=0)
        shots_per_person: int | None = Field(default=None, ge=1)
        seed: int = Field(default=0, ge=0)
        tasks: tuple[Literal["classification", "cloze", "generation"], ...] = ("classification", "cloze", "generation")

    @property
    def training_splits(self) -> tuple[str, str]:
        """Names of the forget split and the retain split."""
        return f"forget_{self.forget_set}", f"retain_{100 - int(self.forget_set)}"

    def rows(self, split: str) -> Iterator[SourceRow]:
        """Stream the rows of a split, in either layout."""
        files = need_shards(self.place.root, split)
        training = "metadata" in columns(files[0])
        required = ("ID", "image", "metadata") if training else ("ID", "image", "question", "answer")
        yield from parquet_rows(files, required)

    def expand(self, row: SourceRow, split: str) -> Iterator[Example]:
        """Turn a profile into its questions, all about one image."""
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
        """Ask about forgotten profiles, the same in other images, retained profiles, and celebrities."""
        root, (forget, retain) = self.place.root, self.training_splits
        forgotten = self._ids(forget)
        yield from self._split("forget", need_shards(root, forget), forgotten, forgotten)
        yield from self._split("test", need_shards(root, "Test_Set"), forgotten, forgotten)
        yield from self._split("retain", need_shards(root, retain), self._ids(retain), None)
        yield from self._split("celebrity", need_shards(root, "Retain_Set"), (), None)

    def measure(self, item: Item, answer: Answer) -> Mapping[str, float]:
        """Measure a classification by the first letter, a cloze by substring, and a free answer by overlap."""
        if item.task.startswith("classification"):
            return {"accuracy": float(first_letter(answer.said, dict(item.options)) == item.example.answer)}
        if item.task.startswith("cloze"):
            return {"accuracy": float(contains(answer.said, item.example.answer))}
        overlap = rouge(answer.said, item.example.answer)
        return {**{name: score.f1 for name, score in overlap.items()}, "bleu": bleu(answer.said, item.example.answer)}

    def aggregates(self, answered: Sequence[Answered], reference: Sequence[Answered] | None, seed: int) -> list[Figure]:
        """Return the parts of Open-MMUnlearning's forget quality and model utility that this benchmark's tasks make up."""
        groups = by_task(answered)
        made = []
        for metric, splits, kinds in (
            ("open_task", ("forget", "test"), ("image",)),
            ("open_retain", ("retain", "celebrity"), ("image", "text")),
        ):
            keys = [(split, f"{task}_{kind}") for split in splits for task in MAIN_METRIC for kind in kinds]
            parts = [self._part(groups[key], MAIN_METRIC[key[1].rpartition("_")[0]]) for key in keys if key in groups]
            if len(parts) == len(keys):
                value, (low, high) = combined_ci(parts, fmean, seed=seed)
                bounds = (1 - high, 1 - low) if metric == "open_task" else (low, high)
                n = sum(len(part.values) for part in parts)
                made.append(Figure(splits[0], "all", metric, 1 - value if metric == "open_task" else value, *bounds, n))
        return made

    def _part(self, answered: Sequence[Answered], metric: str) -> GroupedValues:
        values = [self.measure(*each)[metric] for each in answered]
        return GroupedValues(values, [each.subject for each in answered], answered[0].item.split)

    def notes(self) -> list[str]:
        """Say where the released script cannot be followed to the letter."""
        return [
            "All pictures stand before the text, as chat templates put them; the released script puts each before its own question.",
            "The released script draws shots and test pictures anew in each run; here they follow from `seed`.",
        ]

    def _ids(self, split: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(text(row.values, "ID", row.where) for row in parquet_rows(need_shards(self.place.root, split), ("ID",))))

    def _split(self, split: str, files: Any, people: tuple[str, ...], only: tuple[str, ...] | None) -> Iterator[Item]:
        image = "images" if "images" in columns(files[0]) else "image"
        # Celebrities are not in the full set of profiles, so the published script finds no shots for them either.
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
                f"the {split} split has nobody to ask about",
                where=files[0].parent,
                expected="people besides those of the few-shot examples",
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

    def _questions(self, row: SourceRow) -> Iterator[ProfileQuestion]:
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
                    yield ProfileQuestion(
                        task, _kind(each, column, where), number, text(each, "Question", where), text(each, "Ground_Truth", where), {}
                    )

    def _shots(self, split: str, task: str, people: tuple[str, ...]) -> tuple[dict[str, list[Shot]], tuple[str, ...]]:
        """Return the shots by kind, and the people that they are about."""
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
                            Shot(f"{_prompt(each)}\nCorrect answer: {each.answer}\n\n", ref if each.kind == "image" else None)
                        )
        if not shots["image"] and not shots["text"]:
            raise DataError(
                "the people of the few-shot examples are not in Full_Set",
                where=self.place.root,
                expected=f"their {column}",
                fix="set few_shot=0",
            )
        return {kind: each[: self.protocol.shots_per_person] for kind, each in shots.items()}, chosen

    def _item(self, split: str, person: str, question: ProfileQuestion, ref: ImageRef, shots: list[Shot], where: str) -> Item:
        closing = {"classification": LETTER, "cloze": BLANK, "generation": SENTENCE[question.kind]}[question.task]
        pictures = tuple(shot.picture for shot in shots if shot.picture is not None)
        task = f"{question.task}_{question.kind}"
        key = f"{split}/{task}/{person}/{question.number}"
        example = Example(
            id=key,
            question="".join(shot.text for shot in shots) + f"{_prompt(question)}\n{closing}",
            answer=question.answer,
            images=(*pictures, ref) if question.kind == "image" else (),
            subject=person,
            where=where,
        )
        return Item(key, split, task, example, self.protocol.max_new_tokens, options=tuple(question.options.items()))


def _kind(each: Mapping[str, Any], column: str, where: str) -> str:
    kind = text(each, "Type", where)
    if kind not in KINDS:
        raise DataError(f"{column} has a question of unknown type", where=where, expected=" or ".join(KINDS), got=kind)
    return KINDS[kind]


def _choice(each: Mapping[str, Any], kind: str, number: int, where: str) -> ProfileQuestion:
    options = {str(k): str(v) for k, v in mapping(each.get("Options"), "Options", where).items() if v is not None}
    right = text(each, "Correct_Answer", where)[:1].upper()
    if right not in options:
        raise DataError(
            "Correct_Answer is not among the options", where=where, expected=f"one of {', '.join(options)}", got="another letter"
        )
    return ProfileQuestion("classification", kind, number, text(each, "Question", where), right, options)


def _prompt(question: ProfileQuestion) -> str:
    """Return the question with its options, or with its gap marked."""
    if question.task == "cloze":
        return question.question.replace("__", "[Blank]")
    return "\n".join([question.question, *(f"{letter}: {option}" for letter, option in question.options.items())])
