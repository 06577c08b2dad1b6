"""MLUBench (arXiv 2606.12809): requests in a row, to forget people, animals, buildings, films and other things that models know.

The data are `Tasks/Task<A to D>/task<A to D>_{forget,retain}.json`, lists in LLaVA's form: `id`, `image`, and `conversations` with one
question and one answer. The folder of the picture names the thing. Pictures lie in the same folder, or in an archive there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import ClassVar

from pydantic import Field

from vgid.benchmarks.base import BENCHMARKS, Answer, Benchmark, Item, Metric, PublishedProtocol
from vgid.benchmarks.common.files import json_rows
from vgid.benchmarks.common.values import SourceRow, optional_text, records, text
from vgid.data.example import Example
from vgid.errors import DataError
from vgid.evaluation.overlap import rouge

TASKS = ("A", "B", "C", "D")
"""Requests, in their order."""
COLUMNS = ("id", "image", "conversations")
"""Fields that every row must have."""


@BENCHMARKS.register("mlubench")
class MLUBench(Benchmark):
    """MLUBench: four requests in a row about things that models know, with what earlier requests deleted asked again.

    `forget_set` is the request that is honoured now; a later one starts from the model that the one before it left.
    """

    name = "mlubench"
    title = "MLUBench"
    paper = "arXiv 2606.12809"
    version = 1
    source = None
    forget_sets = TASKS
    main_metrics = ("rougeL",)
    metrics: ClassVar[Mapping[str, Metric]] = {"rougeL": Metric("up", "ROUGE-L F1 against the recorded answer")}

    class Protocol(PublishedProtocol):
        """How MLUBench asks.

        Attributes:
            max_new_tokens: length of an answer, in tokens.
        """

        max_new_tokens: int = Field(default=128, ge=1)

    @property
    def training_splits(self) -> tuple[str, str]:
        """Names of the forget split and the retain split."""
        return f"task{self.forget_set}_forget", f"task{self.forget_set}_retain"

    def rows(self, split: str) -> Iterator[SourceRow]:
        """Stream the rows of a task's file."""
        file = f"{split}.json"
        root = self.place.root
        found = sorted(path for path in root.rglob(file) if path.is_file())
        if len(found) != 1:
            got = ", ".join(str(path.relative_to(root)) for path in found[:4]) or "none"
            raise DataError(f"the file of {split} is not there once", where=str(root), expected=file, got=got, fix="unpack MLUBench.zip")
        yield from json_rows(found[0], COLUMNS)

    def expand(self, row: SourceRow, split: str) -> Iterator[Example]:
        """Turn a row into its one question."""
        where, values, number = row
        turns = records(values["conversations"], "conversations", where)
        speakers = [optional_text(turn, "from") for turn in turns]
        if speakers != ["human", "gpt"]:
            got = f"{len(turns)} turns" if all(speakers) else "turns without a speaker"
            raise DataError("the conversation has another form", where=where, expected="one turn of human, one of gpt", got=got)
        asked, answer = (text(turn, "value", where) for turn in turns)
        question = asked.replace("<image>", "").strip()
        if not question:
            raise DataError("the question is empty", where=where, expected="a text beside <image>", got="nothing else")
        path = text(values, "image", where)
        images = (self.place.pictures.get(path, where),)
        thing = PurePosixPath(path).parent.name
        yield Example(f"{split}/{number}", question, answer, images, thing, tags=(PurePosixPath(path).parent.parent.name,), where=where)

    def items(self) -> Iterator[Item]:
        """Ask what must be forgotten now, what earlier requests had deleted, and what must stay."""
        forget, retain = self.training_splits
        earlier = [(f"task{task}_forget", "forget_earlier") for task in TASKS[: TASKS.index(self.forget_set)]]
        for name, split in ((forget, "forget"), *earlier, (retain, "retain")):
            for example in self.examples(name):
                yield Item(f"{split}/{example.id}", split, example.tags[0] or "all", example, self.protocol.max_new_tokens)

    def measure(self, item: Item, answer: Answer) -> Mapping[str, float]:
        """Measure the overlap with the recorded answer."""
        return {"rougeL": rouge(answer.said, item.example.answer)["rougeL"].f1}

    def notes(self) -> list[str]:
        """Say how this differs from the publication."""
        return ["The published ratings by a hosted language model are left out; ROUGE-L is published beside them."]
