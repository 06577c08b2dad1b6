"""UMU-Bench (hub dataset `chengyewang/UMU-bench`): the same facts asked with an image and by name alone.

The columns `MM_QA`, `UM_QA`, `Classify`, `Cloze` and `Generation` hold text: JSON or Python literals, which are read and never run. The
last three are `{"unimodal": {key: {question, answer}}, "multimodal": {...}}`. A fact counts as forgotten only where both ways of asking
fail. The wording of prompts is ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from statistics import fmean
from typing import Any, ClassVar

from pydantic import Field

from vgid.benchmarks.base import BENCHMARKS, Answer, Answered, Benchmark, Figure, Item, Metric, PublishedProtocol, by_task
from vgid.benchmarks.common.files import Source, need_shards, parquet_rows, picture
from vgid.benchmarks.common.values import SourceRow, mapping, parsed, records, text
from vgid.benchmarks.mllmu import SENTENCE
from vgid.data.example import Example
from vgid.errors import DataError
from vgid.evaluation.overlap import bleu, contains, rouge
from vgid.evaluation.statistics import bootstrap_ci

TASKS = {"classification": "Classify", "cloze": "Cloze", "generation": "Generation"}
"""Each task's column."""
KINDS = {"multimodal": "image", "unimodal": "text"}
"""The published names of questions with the image, and by the person's name."""
ONLY = "Give the right answer and no explanation."
"""The last line of a cloze."""
LEAST_SIMILARITY = 0.5
"""Similarity (`difflib.SequenceMatcher.ratio`, in [0, 1]) from which an answer without an option's text or letter counts as the option that
it resembles most; our choice, so that a slip of spelling is not an error."""


@BENCHMARKS.register("umu")
class UMU(Benchmark):
    """UMU-Bench: options, gaps and free answers about the same facts, with an image and by name.

    `forget_set` is a percentage of the people.
    """

    name = "umu"
    title = "UMU-Bench"
    paper = "hub data set chengyewang/UMU-bench"
    version = 1
    source = Source("chengyewang/UMU-bench")
    forget_sets = ("5", "10", "15")
    main_metrics = ("accuracy", "rougeL")
    metrics: ClassVar[Mapping[str, Metric]] = {
        "accuracy": Metric("up", "share of right answers"),
        "rouge1": Metric("up", "ROUGE-1 F1 with stemmer"),
        "rouge2": Metric("up", "ROUGE-2 F1 with stemmer"),
        "rougeL": Metric("up", "ROUGE-L F1 with stemmer"),
        "bleu": Metric("up", "sentence BLEU, smoothing method 1"),
        "right_both_ways": Metric("up", "share of facts that are right with the picture and by name"),
        "wrong_both_ways": Metric("down", "share of facts that are wrong with the picture and by name"),
        "rougeL_both_ways": Metric("up", "ROUGE-L of both ways: harmonic mean; (a^2 + b^2) / (a + b) on what is to be forgotten"),
    }

    class Protocol(PublishedProtocol):
        """How UMU-Bench asks.

        Attributes:
            max_new_tokens: length of an answer to options and gaps, in tokens.
            generation_tokens: length of a free answer, in tokens.
        """

        max_new_tokens: int = Field(default=50, ge=1)
        generation_tokens: int = Field(default=200, ge=1)

    @property
    def training_splits(self) -> tuple[str, str]:
        """Names of the forget split and the retain split."""
        return f"forget_{self.forget_set}", f"retain_{100 - int(self.forget_set)}"

    def rows(self, split: str) -> Iterator[SourceRow]:
        """Stream the rows of a split with their questions for training."""
        yield from parquet_rows(need_shards(self.place.root, split), ("ID", "image", "MM_QA", "UM_QA"))

    def expand(self, row: SourceRow, split: str) -> Iterator[Example]:
        """Turn a row into its questions with the image, then those by name."""
        where, values, _ = row
        person, ref = text(values, "ID", where), picture(values["image"], self.place, where)
        for column, images in (("MM_QA", (ref,)), ("UM_QA", ())):
            for key, question, answer in _pairs(values[column], column, where):
                yield Example(f"{split}/{person}/{column}/{key}", question, answer, images, person, where=where)

    # -- evaluation -------------------------------------------------------------------------------------------------------

    def items(self) -> Iterator[Item]:
        """Ask for all facts of all splits, with the image and by name."""
        forget, retain = self.training_splits
        for split, folder in (("forget", forget), ("retain", retain), ("real", "real_person")):
            for row in parquet_rows(need_shards(self.place.root, folder), ("ID", "image", *TASKS.values())):
                for task, column in TASKS.items():
                    yield from self._task(split, task, mapping(row.values[column], column, row.where), row)

    def measure(self, item: Item, answer: Answer) -> Mapping[str, float]:
        """Measure options by their text, letter or similarity, gaps by substring, and free answers by overlap."""
        truth = item.example.answer
        if item.task.startswith("classification"):
            return {"accuracy": float(chosen_option(answer.said, dict(item.options)) == truth)}
        if item.task.startswith("cloze"):
            return {"accuracy": float(contains(_normalised(answer.said), _normalised(truth)))}
        overlap = rouge(answer.said, truth)
        return {**{name: score.f1 for name, score in overlap.items()}, "bleu": bleu(answer.said, truth)}

    def aggregates(self, answered: Sequence[Answered], reference: Sequence[Answered] | None, seed: int) -> list[Figure]:
        """Return figures of facts over both ways of asking."""
        groups, made = by_task(answered), []
        for split in dict.fromkeys(each.item.split for each in answered):
            for task in TASKS:
                ways = [groups.get((split, f"{task}_{kind}"), []) for kind in KINDS.values()]
                facts = self._both_ways(ways)
                people = [image.subject for image, _ in facts]
                for metric, values in self._combined(split, task, facts).items():
                    made.append(Figure(split, task, metric, fmean(values), *bootstrap_ci(values, people, seed=seed), len(values)))
        return made

    def _both_ways(self, ways: Sequence[Sequence[Answered]]) -> list[tuple[Answered, Answered]]:
        """Pair the answers of one fact: with the image, and by name."""
        named = {each.item.key.replace("_text/", "_image/"): each for each in ways[1]}
        return [(each, named[each.item.key]) for each in ways[0]]

    def _combined(self, split: str, task: str, facts: Sequence[tuple[Answered, Answered]]) -> dict[str, list[float]]:
        measured = [(self.measure(*image), self.measure(*name)) for image, name in facts]
        if task == "generation":
            pairs = [(a["rougeL"], b["rougeL"]) for a, b in measured]
            return {"rougeL_both_ways": [_combined_overlap(a, b, forget=split == "forget") for a, b in pairs]}
        right = [(a["accuracy"], b["accuracy"]) for a, b in measured]
        return {"right_both_ways": [a * b for a, b in right], "wrong_both_ways": [(1 - a) * (1 - b) for a, b in right]}

    def _task(self, split: str, task: str, ways: Mapping[str, Any], row: SourceRow) -> Iterator[Item]:
        where, values, _ = row
        person, ref = text(values, "ID", where), picture(values["image"], self.place, where)
        missing = [way for way in KINDS if way not in ways]
        if missing:
            raise DataError(f"{TASKS[task]} has another layout", where=where, expected=" and ".join(KINDS), got=f"fields {', '.join(ways)}")
        asked = {way: mapping(ways[way], way, where) for way in KINDS}
        if asked["unimodal"].keys() != asked["multimodal"].keys():
            raise DataError(
                f"{TASKS[task]} asks different facts with the image and by name",
                where=where,
                expected=f"{len(asked['multimodal'])} keys",
                got=f"{len(asked['unimodal'])} keys, not all equal",
            )
        for way, kind in KINDS.items():
            for fact, each in asked[way].items():
                key = f"{split}/{task}_{kind}/{person}/{fact}"
                question, answer, options = _question(task, kind, mapping(each, fact, where), where)
                example = Example(key, question, answer, (ref,) if kind == "image" else (), person, where=where)
                tokens = self.protocol.generation_tokens if task == "generation" else self.protocol.max_new_tokens
                yield Item(key, split, f"{task}_{kind}", example, tokens, options=options)


def _question(task: str, kind: str, each: Mapping[str, Any], where: str) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    question, answer = text(each, "question", where), text(each, "answer", where)
    if task == "generation":
        return f"{question}\n{SENTENCE[kind]}", answer, ()
    if task == "cloze":
        return f"{question}\n{ONLY}", answer.split(".")[0], ()
    options = {str(letter): str(option) for letter, option in mapping(each.get("options"), "options", where).items() if option is not None}
    right = answer.split(".")[0].strip().upper()
    if right not in options:
        raise DataError("the answer is not among the options", where=where, expected=f"one of {', '.join(options)}", got="another letter")
    return f"{question}\nChoose one of these answers: {'; '.join(options.values())}", options[right], tuple(options.items())


def _pairs(value: Any, column: str, where: str) -> Iterator[tuple[str, str, str]]:
    """Stream (key, question, answer) from `{"question": {key: q}, "answer": {key: a}}`, or from a list of objects."""
    value = parsed(value, column, where)
    if isinstance(value, Mapping) and isinstance(value.get("question"), Mapping):
        questions, answers = mapping(value["question"], column, where), mapping(value.get("answer"), column, where)
        for key in questions:
            yield key, text(questions, key, where), text(answers, key, where)
        return
    for number, each in enumerate(records(value, column, where)):
        pair = {name.lower(): said for name, said in each.items()}
        yield str(number), text(pair, "question", where), text(pair, "answer", where)


def chosen_option(said: str, options: Mapping[str, str]) -> str | None:
    """Return the option that an answer chooses: by its text, else by its letter, else by similarity; None where there is none.

    Args:
        said: the answer.
        options: texts by letter.
    """
    answer = _normalised(said).lower()
    for option in options.values():
        if _normalised(option).lower() and _normalised(option).lower() in answer:
            return option
    letter = re.match(r"([A-D])(?:[.\s):：]|$)", said.strip().upper()) or re.search(r"\b([A-D])\b", said.upper())
    if letter and letter[1] in options:
        return options[letter[1]]
    similarity = {option: SequenceMatcher(None, answer, _normalised(option).lower()).ratio() for option in options.values()}
    best = max(similarity, key=lambda option: similarity[option])
    return best if similarity[best] >= LEAST_SIMILARITY else None


def _normalised(said: str) -> str:
    """Return a text with single spaces and without punctuation at the end."""
    return " ".join(said.replace("\u200b", " ").split()).rstrip(".!?。！？,，;；:： ")


def _combined_overlap(a: float, b: float, *, forget: bool) -> float:
    """Return the harmonic mean of two overlaps; to forget, their contraharmonic mean, which the larger one dominates."""
    if a + b == 0:
        return 0.0
    return (a * a + b * b) / (a + b) if forget else 2 * a * b / (a + b)
