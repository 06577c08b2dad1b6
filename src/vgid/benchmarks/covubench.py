"""CoVUBench (arXiv 2605.03547): invented copyrighted characters and logos in many views.

The data are parquet shards `data/<split>-*.parquet`. Questions of type `multi_modal` and `caption` come with the image, all others without.
A row of the test set is asked if its concept must be forgotten, a row of the retain set if it must not.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from math import sqrt
from typing import Any, ClassVar

from pydantic import Field

from vgid.benchmarks.base import BENCHMARKS, Answer, Benchmark, Item, Metric, PublishedProtocol
from vgid.benchmarks.common.files import Source, need_shards, parquet_rows, picture
from vgid.benchmarks.common.values import SourceRow, flattened, parsed, text
from vgid.data.example import Example
from vgid.errors import DataError
from vgid.evaluation.overlap import keyword_recall, rouge

COLUMNS = ("image", "question", "answer", "name", "keywords", "question_type")
"""Columns that every row must have."""
WITH_PICTURE = ("multi_modal", "caption")
"""Types of questions that come with the image."""


@BENCHMARKS.register("covubench")
class CoVUBench(Benchmark):
    """CoVUBench: questions about invented characters and logos, with an image and by name.

    `forget_set` is a percentage of the concepts.
    """

    name = "covubench"
    title = "CoVUBench"
    paper = "arXiv 2605.03547"
    version = 1
    source = Source("herbwood27/CoVUBench")
    forget_sets = ("5", "10", "15", "20")
    main_metrics = ("efficacy", "generality", "specificity")
    metrics: ClassVar[Mapping[str, Metric]] = {
        "efficacy": Metric("up", "1 - keyword recall on the forget set", "up"),
        "generality": Metric("up", "1 - keyword recall on other views of the same concepts", "up"),
        "divergence": Metric("up", "1 - cosine of answer and recorded answer on the forget set, by counts of words", "up"),
        "specificity": Metric("up", "keyword recall on the retain set"),
        "fluency": Metric("up", "ROUGE-L recall on the retain set"),
    }

    class Protocol(PublishedProtocol):
        """How CoVUBench asks.

        Attributes:
            max_new_tokens: length of an answer, in tokens.
        """

        max_new_tokens: int = Field(default=256, ge=1)

    @property
    def training_splits(self) -> tuple[str, str]:
        """Names of the forget split and the retain split."""
        return f"forget{self.forget_set}", "retain"

    def rows(self, split: str) -> Iterator[SourceRow]:
        """Stream the rows of a split; from the retain set only those with a concept that must not be forgotten."""
        for row in parquet_rows(need_shards(self.place.root, split), COLUMNS, ("type",)):
            if split != self.training_splits[1] or text(row.values, "name", row.where) not in self._concepts:
                yield row

    def expand(self, row: SourceRow, split: str) -> Iterator[Example]:
        """Turn a row into its one question."""
        yield self._example(row, f"{split}/{row.number}")

    def items(self) -> Iterator[Item]:
        """Ask about the forget set, other views of its concepts, and the retain set without them."""
        for split, folder in (("forget", self.training_splits[0]), ("test", "test"), ("retain", self.training_splits[1])):
            for row in self.rows(folder):
                if split != "test" or text(row.values, "name", row.where) in self._concepts:
                    key = f"{split}/{row.number}"
                    yield Item(
                        key, split, text(row.values, "question_type", row.where), self._example(row, key), self.protocol.max_new_tokens
                    )

    @cached_property
    def _concepts(self) -> frozenset[str]:
        """Names of the concepts to forget."""
        files = need_shards(self.place.root, self.training_splits[0])
        return frozenset(text(row.values, "name", row.where) for row in parquet_rows(files, ("name",)))

    def measure(self, item: Item, answer: Answer) -> Mapping[str, float]:
        """Measure keywords after NFKC and case folding, overlap, and the distance of the answer from the recorded one."""
        found = keyword_recall(answer.said, item.example.keywords, fold)
        if item.split == "forget":
            return {"efficacy": 1 - found, "divergence": 1 - word_cosine(answer.said, item.example.answer)}
        if item.split == "test":
            return {"generality": 1 - found}
        return {"specificity": found, "fluency": rouge(answer.said, item.example.answer)["rougeL"].recall}

    def notes(self) -> list[str]:
        """Say which measure differs from the published one."""
        return ["Divergence is published with a model's sentence embeddings; here it is taken from word counts, which is not comparable."]

    def _example(self, row: SourceRow, id: str) -> Example:
        where, values, _ = row
        with_picture = text(values, "question_type", where) in WITH_PICTURE
        keywords = flattened(parsed(values["keywords"], "keywords", where))
        if not keywords:
            raise DataError(
                "there are no keywords", where=where, expected="texts, in lists or objects", got=type(values["keywords"]).__name__
            )
        return Example(
            id=id,
            question=text(values, "question", where),
            answer=text(values, "answer", where),
            images=(picture(values["image"], self.place, where),) if with_picture else (),
            subject=text(values, "name", where),
            keywords=keywords,
            tags=tuple(tag for tag in (values.get("type"), values.get("question_type")) if isinstance(tag, str) and tag),
            where=where,
        )


def fold(words: str) -> str:
    """Return a text after Unicode normalisation (NFKC) and case folding."""
    return unicodedata.normalize("NFKC", words).casefold()


def word_cosine(a: str, b: str) -> float:
    """Return the cosine of two texts' word counts, in [0, 1]; 0 where either has no word."""
    left, right = (Counter[Any](re.findall(r"\w+", fold(words))) for words in (a, b))
    lengths = sqrt(sum(n * n for n in left.values()) * sum(n * n for n in right.values()))
    return sum(count * right[word] for word, count in left.items()) / lengths if lengths else 0.0
