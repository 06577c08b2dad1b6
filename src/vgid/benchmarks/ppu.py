"""PPU-Bench (arXiv 2605.08800): real people, of whom some facts are to be forgotten and others kept.

The data are parquet shards of three tasks (`ppu_eval_generation`, `ppu_eval_classification`, `ppu_eval_cloze`), and the split files
`complete_split.json` (subjects), `selective_split.json` and `persona_split.json` (rows) of its code repository, in the data's folder or in
`split` or `data/split` there. The schema was read from the published loaders; the data themselves were not available.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

from pydantic import Field

from vgid.benchmarks.base import BENCHMARKS, Answer, Benchmark, Item, Metric, PublishedProtocol
from vgid.benchmarks.common.files import Source, need_shards, parquet_rows, picture, shards
from vgid.benchmarks.common.values import SourceRow, text
from vgid.data.example import Example
from vgid.errors import DataError
from vgid.evaluation.overlap import rouge
from vgid.reading import parse_json, read_text

TASKS = ("generation", "classification", "cloze")
COLUMNS = ("sample_id", "subject_id", "modality", "question")
"""Columns that every row must have."""
LETTERS = ("A", "B", "C", "D")
LETTER = re.compile(r"\b(A(?!\s+(?!(?:is|or|and|as|because|since|seems)\b)[a-z])|[BCD])\b")
"""A letter as a word of its own; `A` not in front of a word in small letters, except such as go on after a letter."""
OPTIONAL = ("image", "answer_text", "answer_label", *(f"option_{letter.lower()}" for letter in LETTERS))
"""Columns that some tasks have: a picture, the answer, or options with the letter of the right one."""
WORDS = {
    "generation": "{question}\nGive the answer in one English sentence.",
    "classification": "{question}\n{options}\nReply with the letter of the right option only.",
    "cloze": "{question}\nReply only with what belongs in the place of [Blank].",
}
"""Prompts in our own words; they ask for the same as the published ones."""


@BENCHMARKS.register("ppu")
class PPUBench(Benchmark):
    """PPU-Bench: some or all facts about public figures, with an image and by name.

    `forget_set` is a percentage of the people, whose facts are all forgotten, or `selective` or `persona`: single facts of each person.
    """

    name = "ppu"
    title = "PPU-Bench"
    paper = "arXiv 2605.08800"
    version = 1
    source = Source("closerG/ppu-bench")
    forget_sets = ("persona", "selective", "5", "10", "15", "30")
    main_metrics = ("accuracy", "exact_match", "rougeL")
    metrics: ClassVar[Mapping[str, Metric]] = {
        "accuracy": Metric("up", "right letters; an answer with several letters is wrong"),
        "exact_match": Metric("up", "gaps filled with the answer, without regard to case and punctuation"),
        "rougeL": Metric("up", "ROUGE-L F1 of free answers"),
    }

    class Protocol(PublishedProtocol):
        """How PPU-Bench asks.

        Attributes:
            max_new_tokens: length of an answer, in tokens.
        """

        max_new_tokens: int = Field(default=50, ge=1)

    @property
    def training_splits(self) -> tuple[str, str]:
        """Names of the forget split and the retain split."""
        return "forget", "retain"

    def rows(self, split: str) -> Iterator[SourceRow]:
        """Stream the free questions of a split; the other tasks ask about the same facts."""
        return self._rows(split, "generation")

    def expand(self, row: SourceRow, split: str) -> Iterator[Example]:
        """Turn a row into its one question, as it stands in the data."""
        yield self._example(row, f"{split}/{row.number}", "generation", text(row.values, "question", row.where))

    def items(self) -> Iterator[Item]:
        """Ask forget and retain rows of all three tasks, with an image and by name."""
        for split in self.training_splits:
            for task in TASKS:
                for row in self._rows(split, task):
                    key = f"{split}/{task}/{row.number}"
                    example = self._example(row, key, task, self._prompt(row, task))
                    yield Item(key, split, task, example, self.protocol.max_new_tokens)

    def measure(self, item: Item, answer: Answer) -> Mapping[str, float]:
        """Measure the letter, the gap or the overlap, by task."""
        expected = item.example.answer
        if item.task == "classification":
            return {"accuracy": float(only_letter(answer.said) == expected)}
        if item.task == "cloze":
            return {"exact_match": float(bare(answer.said) == bare(expected))}
        return {"rougeL": rouge(answer.said, expected)["rougeL"].f1}

    def notes(self) -> list[str]:
        """Say what is left out."""
        return ["Questions with other pictures, other words and prefixes, and the published general tasks, are left out."]

    def _rows(self, split: str, task: str) -> Iterator[SourceRow]:
        for row in parquet_rows(need_shards(self.place.root, f"ppu_eval_{task}"), COLUMNS, OPTIONAL):
            person, sample = (text(row.values, name, row.where) for name in ("subject_id", "sample_id"))
            side = "forget" if self._is_forgotten(person, sample) else "retain"
            if side == split and (self._kept is None or side == "forget" or sample in self._kept):
                yield row

    def _is_forgotten(self, person: str, sample: str) -> bool:
        return (person if self.forget_set.isdigit() else sample) in self._chosen

    @cached_property
    def _split(self) -> tuple[frozenset[str], frozenset[str] | None]:
        """People or samples to forget, and the samples to keep where not all others are."""
        name = "complete" if self.forget_set.isdigit() else self.forget_set
        places = [self.place.root / folder / f"{name}_split.json" for folder in ("", "split", "data/split")]
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            raise DataError(
                f"the file {name}_split.json is not there",
                where=str(self.place.root),
                expected=f"{name}_split.json in it, in split or in data/split",
                got="none",
                fix="copy data/split of the benchmark's code repository into the data's folder",
            )
        # The selective split is a list, the others are objects.
        content = parse_json(f'{{"split": {read_text(file)}}}', file)["split"]
        kept = None
        if name == "complete":
            chosen = _ids(content, f"forget{self.forget_set}", file)
        elif name == "selective":
            chosen = _ids({"rows": content}, "rows", file)
        else:
            chosen, kept = (_ids(content, key, file) for key in ("delete_ids", "keep_ids"))
        column = "subject_id" if name == "complete" else "sample_id"
        files = [shard for task in TASKS for shard in shards(self.place.root, f"ppu_eval_{task}")]
        known = {text(row.values, column, row.where) for row in parquet_rows(files, (column,))}
        if missing := sorted((chosen | (kept or frozenset())) - known):
            raise DataError(
                "the split names what the data do not have",
                where=str(file),
                expected=f"values of {column} in the shards",
                got=f"{len(missing)} others: {', '.join(missing[:3])}",
                fix="take split and data of the same revision",
            )
        return chosen, kept

    @property
    def _chosen(self) -> frozenset[str]:
        return self._split[0]

    @property
    def _kept(self) -> frozenset[str] | None:
        return self._split[1]

    def _prompt(self, row: SourceRow, task: str) -> str:
        question = re.sub(r"_{3,}", "[Blank]", text(row.values, "question", row.where)) if task == "cloze" else None
        options = ""
        if task == "classification":
            options = "\n".join(f"{letter}: {text(row.values, f'option_{letter.lower()}', row.where)}" for letter in LETTERS)
        return WORDS[task].format(question=question or text(row.values, "question", row.where), options=options)

    def _example(self, row: SourceRow, id: str, task: str, question: str) -> Example:
        where, values, _ = row
        modality = text(values, "modality", where)
        answer = text(values, "answer_label" if task == "classification" else "answer_text", where)
        if task == "classification" and answer.upper() not in LETTERS:
            raise DataError("answer_label is not the letter of an option", where=where, expected="A, B, C or D", got="something else")
        return Example(
            id=id,
            question=question,
            answer=answer.upper() if task == "classification" else answer,
            images=(picture(values.get("image"), self.place, where),) if modality == "vqa" else (),
            subject=text(values, "subject_id", where),
            tags=(task, modality),
            where=where,
        )


def _ids(content: Any, key: str, file: Any) -> frozenset[str]:
    """The ids under a key of a split file: texts, or objects with `id` or `sample_id`."""
    entries = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        got = type(content).__name__ if not isinstance(content, dict) else ", ".join(sorted(map(str, content))[:5]) or "nothing"
        raise DataError("the split file has another form", where=str(file), expected=f"a list of ids in {key!r}", got=got)
    found = [each.get("id", each.get("sample_id")) if isinstance(each, dict) else each for each in entries]
    if not all(isinstance(each, str | int) and str(each) for each in found):
        raise DataError("the split file has another form", where=str(file), expected="ids, or objects with id or sample_id", got="others")
    return frozenset(map(str, found))


def only_letter(said: str) -> str | None:
    """The letter that an answer names as a word of its own; None where it names none, or several.

    A small letter counts only where it is all that is said, and `A` not as an article ("A doctor"; but "A is right").
    """
    letters = set(LETTER.findall(said)) or {said.strip(string.whitespace + string.punctuation).upper()} & set(LETTERS)
    return letters.pop() if len(letters) == 1 else None


def bare(words: str) -> str:
    """A text in small letters, without ASCII punctuation, with single spaces."""
    return " ".join(words.lower().translate(str.maketrans("", "", string.punctuation)).split())
