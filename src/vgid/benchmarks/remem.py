"""ReMem (arXiv 2605.03759): invented people in many pictures, asked about in one step and in several.

The data are parquet shards `data/<split>-*.parquet`: `forget1` to `forget4`, `retain`, `test` and `finetune`. The columns are those of the
published card; what the texts in them look like was not available, so keywords may be JSON, a list or a plain text, and a person is named
by the folder of the picture, or by its file name without digits at the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from math import log2
from pathlib import PurePosixPath
from typing import Any, ClassVar

from pydantic import Field

from vgid.benchmarks.base import BENCHMARKS, Answer, Benchmark, Item, Metric, PublishedProtocol
from vgid.benchmarks.common.files import Source, need_shards, parquet_rows, picture
from vgid.benchmarks.common.values import SourceRow, flattened, optional_text, parsed, text
from vgid.data.example import Example
from vgid.errors import DataError
from vgid.evaluation.overlap import keyword_recall, rouge

COLUMNS = ("question", "answer", "keywords", "question_type", "image_path")
"""Columns that every row must have."""
OPTIONAL = ("image", "qa_category", "attribute", "cloze_prompt")
"""Columns that rows may leave empty."""


@BENCHMARKS.register("remem")
class ReMem(Benchmark):
    """ReMem: questions of one step and of several about invented people, and how exposed their attributes are.

    `forget_set` is the number of a published forget split.
    """

    name = "remem"
    title = "ReMem"
    paper = "arXiv 2605.03759"
    version = 1
    source = Source("herbwood27/Remem")
    forget_sets = ("1", "2", "3", "4")
    main_metrics = ("keywords",)
    metrics: ClassVar[Mapping[str, Metric]] = {
        "keywords": Metric("up", "share of the keywords in the answer"),
        "rougeL": Metric("up", "ROUGE-L recall of the recorded answer"),
        "exposure": Metric(
            "up",
            "1 - log2(rank) / log2(number) of the value after the cloze prompt, among values of the same attribute",
            likelihood=True,
        ),
    }

    class Protocol(PublishedProtocol):
        """How ReMem asks.

        Attributes:
            max_new_tokens: length of an answer, in tokens.
            values: values of an attribute that are compared at most, the right one among them.
        """

        max_new_tokens: int = Field(default=256, ge=1)
        values: int = Field(default=100, ge=2)

    @property
    def training_splits(self) -> tuple[str, str]:
        """Names of the forget split and the retain split."""
        return f"forget{self.forget_set}", "retain"

    def rows(self, split: str) -> Iterator[SourceRow]:
        """Stream the rows of a split."""
        yield from parquet_rows(need_shards(self.place.root, split), COLUMNS, OPTIONAL)

    def expand(self, row: SourceRow, split: str) -> Iterator[Example]:
        """Turn a row into its one question."""
        yield self._example(row, f"{split}/{row.number}")

    def items(self) -> Iterator[Item]:
        """Ask about the forget set, other questions about its people, and the retain set; cloze prompts where there are other values."""
        forget, retain = self.training_splits
        for split, folder in (("forget", forget), ("test", "test"), ("retain", retain)):
            for row in self.rows(folder):
                example = self._example(row, f"{split}/{row.number}")
                if split == "test" and example.subject not in self._people:
                    continue
                kind = text(row.values, "question_type", row.where)
                yield Item(example.id, split, kind, example, self.protocol.max_new_tokens)
                prompt, values = optional_text(row.values, "cloze_prompt"), self._candidates(row, example)
                if split != "test" and prompt and len(values) > 1:
                    cloze = Example(
                        f"{example.id}/cloze", prompt, values[0], example.images, example.subject, tags=example.tags, where=row.where
                    )
                    yield Item(cloze.id, split, "cloze", cloze, 0, values)

    def measure(self, item: Item, answer: Answer) -> Mapping[str, float]:
        """Measure keywords and overlap, or the rank of the right value."""
        if item.task == "cloze":
            right, *others = answer.losses
            rank = 1 + sum(loss < right for loss in others)
            return {"exposure": 1 - log2(rank) / log2(len(answer.losses))}
        found = {"rougeL": rouge(answer.said, item.example.answer)["rougeL"].recall}
        return found | {"keywords": keyword_recall(answer.said, item.example.keywords, str.casefold)}

    def notes(self) -> list[str]:
        """Say what is our reading of the publication."""
        return [
            "Exposure is the usual one (log2 of the number of values less log2 of the rank) as a share of its most; the published code was"
            " not available.",
            "People are distinguished by the paths of their pictures.",
        ]

    @cached_property
    def _people(self) -> frozenset[str]:
        """People to forget."""
        return frozenset(person(text(row.values, "image_path", row.where)) for row in self.rows(self.training_splits[0]))

    @cached_property
    def _values(self) -> Mapping[str, tuple[str, ...]]:
        """All values of each attribute, in the order of the rows."""
        found: dict[str, dict[str, None]] = {}
        for split in self.training_splits:
            for row in self.rows(split):
                if attribute := optional_text(row.values, "attribute"):
                    found.setdefault(attribute, {})[keywords(row)[0]] = None
        return {attribute: tuple(values) for attribute, values in found.items()}

    def _candidates(self, row: SourceRow, example: Example) -> tuple[str, ...]:
        """The right value first, then others of its attribute."""
        right = example.keywords[0]
        others = [value for value in self._values.get(optional_text(row.values, "attribute") or "", ()) if value != right]
        return (right, *others[: self.protocol.values - 1])

    def _example(self, row: SourceRow, id: str) -> Example:
        where, values, _ = row
        tags = tuple(tag for name in ("qa_category", "attribute") if (tag := optional_text(values, name)))
        return Example(
            id=id,
            question=text(values, "question", where),
            answer=text(values, "answer", where),
            images=(picture(values["image"], self.place, where),) if values.get("image") else (),
            subject=person(text(values, "image_path", where)),
            keywords=keywords(row),
            tags=tags,
            where=where,
        )


def person(path: str) -> str:
    """The person of a picture: the folder that it lies in, or its file name without digits at the end where all lie in one folder."""
    *folders, name = PurePosixPath(path.replace("\\", "/")).parts
    own = [folder for folder in folders if folder.lower() not in ("", "/", ".", "data", "image", "images")]
    return own[-1] if own else re.sub(r"[\W_]*\d+$", "", PurePosixPath(name).stem) or name


def keywords(row: SourceRow) -> tuple[str, ...]:
    """The keywords of a row: JSON, a list, or one plain text.

    Raises:
        DataError: there are none.
    """
    value: Any = row.values["keywords"]
    with suppress(DataError):  # a plain text
        value = parsed(value, "keywords", row.where)
    found = flattened(value if isinstance(value, str | list | tuple | dict) else str(value) if value is not None else None)
    if not found:
        raise DataError("there are no keywords", where=row.where, expected="texts", got=type(value).__name__)
    return found
