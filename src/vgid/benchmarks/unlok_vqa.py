"""UnLOK-VQA (arXiv 2505.01456): what a model knows beyond a picture, with questions nearby that must stay.

The data are one JSON list or JSON lines, with `id`, `src`, `pred`, `loc`, `loc_ans` and `image_id` (of COCO), and the COCO pictures in the
same folder. Questions are shown with the row's picture and ask for one word, as the released script does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from vgid.benchmarks.base import BENCHMARKS, Answer, Benchmark, Item, Metric, PublishedProtocol
from vgid.benchmarks.common.files import Source, json_rows
from vgid.benchmarks.common.values import SourceRow, text, texts
from vgid.data.example import Example, ImageRef
from vgid.errors import DataError

COLUMNS = ("id", "src", "pred", "loc", "loc_ans", "image_id")
"""Fields that every row must have."""
ASKED = "{question}\nAnswer in one word."
"""The prompt in our own words; it asks for the same as the published one."""
PICTURES = ("COCO_train2014_{:012d}.jpg", "COCO_val2014_{:012d}.jpg", "{:012d}.jpg", "{}.jpg")
"""File names of a COCO picture."""


@BENCHMARKS.register("unlok_vqa")
class UnlokVQA(Benchmark):
    """UnLOK-VQA: facts beyond a picture to forget, and nearby questions about the same picture to keep.

    The publication forgets one row at a time; here all rows are forgotten at once, or those whose number ends in 0 (`tenth`).
    """

    name = "unlok_vqa"
    title = "UnLOK-VQA"
    paper = "arXiv 2505.01456"
    version = 1
    source = Source("vaidehi99/UnLOK-VQA")
    forget_sets = ("all", "tenth")
    main_metrics = ("accuracy",)
    metrics: ClassVar[Mapping[str, Metric]] = {"accuracy": Metric("up", "the recorded answer stands in the answer as words of its own")}

    class Protocol(PublishedProtocol):
        """How UnLOK-VQA asks.

        Attributes:
            max_new_tokens: length of an answer, in tokens.
            file: name of the data file; empty for the only one in the folder.
        """

        max_new_tokens: int = Field(default=10, ge=1)
        file: str = ""

    @property
    def training_splits(self) -> tuple[str, str]:
        """Names of the questions to forget and the nearby questions."""
        return "src", "loc"

    def rows(self, split: str) -> Iterator[SourceRow]:
        """Stream the rows of the file; all of them have questions of both kinds."""
        yield from json_rows(self._file, COLUMNS)

    def expand(self, row: SourceRow, split: str) -> Iterator[Example]:
        """Turn a row into its question to forget, or into its nearby questions.

        Of rows that are not forgotten, the question itself is to be kept too.
        """
        forgotten = self.forget_set == "all" or row.number % 10 == 0
        if forgotten == (split == "src"):
            yield self._example(row, "src", text(row.values, "src", row.where), text(row.values, "pred", row.where))
        if split == "loc":
            asked, right = (texts(row.values[name], name, row.where, at_least=0) for name in ("loc", "loc_ans"))
            if len(asked) != len(right):
                raise DataError("loc and loc_ans do not agree", where=row.where, expected=f"{len(asked)} answers", got=str(len(right)))
            for number, (question, answer) in enumerate(zip(asked, right, strict=True)):
                yield self._example(row, f"loc/{number}", re.sub(r"^nq question:\s*", "", question), answer)

    def items(self) -> Iterator[Item]:
        """Ask what must be forgotten, then what must stay."""
        for split, training in zip(("forget", "retain"), self.training_splits, strict=True):
            for example in self.examples(training):
                task = "nearby" if "/loc/" in example.id else "fact"
                prompted = replace(example, question=ASKED.format(question=example.question))
                yield Item(f"{split}/{example.id}", split, task, prompted, self.protocol.max_new_tokens)

    def measure(self, item: Item, answer: Answer) -> Mapping[str, float]:
        """Look for the recorded answer."""
        words = r"\W+".join(map(re.escape, re.findall(r"\w+", item.example.answer.casefold())))
        return {"accuracy": float(bool(words) and re.search(rf"\b{words}\b", answer.said.casefold()) is not None)}

    def notes(self) -> list[str]:
        """Say how this differs from the publication."""
        return [
            "The publication forgets one row at a time, and takes an answer among several guesses of an attack for a leak; here rows are"
            " forgotten together and answered once. `vgid audit` has the attacks.",
            "Other wordings and pictures of the publication lie elsewhere and are left out.",
        ]

    @property
    def _file(self) -> Path:
        root = self.place.root
        if root.is_file() or self.protocol.file:
            return root if root.is_file() else root / self.protocol.file
        found = sorted(path for pattern in ("*.json", "*.jsonl") for path in root.glob(pattern))
        if len(found) != 1:
            got = ", ".join(path.name for path in found[:4]) or "none"
            raise DataError("which file holds the rows?", where=str(root), expected="one JSON file", got=got, fix="give the file to --data")
        return found[0]

    def _example(self, row: SourceRow, part: str, question: str, answer: str) -> Example:
        number = text(row.values, "id", row.where)
        return Example(
            id=f"{row.number}/{part}", question=question, answer=answer, images=(self._picture(row),), subject=number, where=row.where
        )

    def _picture(self, row: SourceRow) -> ImageRef:
        number: Any = text(row.values, "image_id", row.where)
        if not number.isdigit():
            return self.place.pictures.get(number, row.where)
        for name in PICTURES:
            try:
                return self.place.pictures.get(name.format(int(number)), row.where)
            except DataError as error:
                problem = error
        raise problem
