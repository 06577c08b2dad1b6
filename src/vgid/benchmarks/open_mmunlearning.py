"""Open-MMunlearning's prepared folders (arXiv 2610.10358): `data/unlearn/<benchmark>/<split>/train-*.parquet`, one row per image.

The columns are `image`, `ID` and `metadata`, JSON text of questions and answers, whichever benchmark the rows come from. Give the folder of
one benchmark; its splits are subfolders (`forget_5`, `retain_95`, or `forget`, `retain`). The questions are those of the rows themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from pydantic import Field

from vgid.benchmarks.base import BENCHMARKS, Answer, Benchmark, Item, Metric, PublishedProtocol
from vgid.benchmarks.common.files import need_shards, parquet_rows, picture, shards
from vgid.benchmarks.common.values import SourceRow, records, text
from vgid.data.example import Example
from vgid.evaluation.metrics import is_refusal, probability
from vgid.evaluation.overlap import exact_match, rouge


@BENCHMARKS.register("open_mmunlearning")
class OpenMMUnlearning(Benchmark):
    """Open-MMunlearning's prepared data: the questions of the rows themselves.

    `forget_set` is a percentage, or `all` for folders named `forget` and `retain`.
    """

    name = "open_mmunlearning"
    title = "Open-MMunlearning's prepared data"
    paper = "arXiv 2610.10358"
    version = 1
    source = None
    forget_sets = ("5", "1", "10", "15", "20", "all")
    main_metrics = ("rougeL",)
    metrics: ClassVar[Mapping[str, Metric]] = {
        "rougeL": Metric("up", "ROUGE-L F1 with stemmer"),
        "exact_match": Metric("up", "share of answers that equal the recorded one, ignoring case and punctuation"),
        "probability": Metric("up", "probability of the recorded answer, geometric mean over tokens", likelihood=True),
        "refused": Metric("down", "share of refusals, by words"),
    }

    class Protocol(PublishedProtocol):
        """How the rows are asked.

        Attributes:
            max_new_tokens: length of an answer, in tokens.
        """

        max_new_tokens: int = Field(default=50, ge=1)

    @property
    def training_splits(self) -> tuple[str, str]:
        """Names of the forget split and the retain split, as the folder has them."""
        if self.forget_set == "all":
            return "forget", "retain"
        rest = 100 - int(self.forget_set)
        forget = self._folder(f"forget_{self.forget_set}", f"forget{self.forget_set}")
        retain = self._folder(f"retain_{rest}", f"retain{rest}", "retain")
        return forget, retain

    def _folder(self, *names: str) -> str:
        """The first of these splits that is there, else the first name, which the error about a missing split then shows."""
        return next((name for name in names if shards(self.place.root, name)), names[0])

    def rows(self, split: str) -> Iterator[SourceRow]:
        """Stream the rows of a split."""
        yield from parquet_rows(need_shards(self.place.root, split), ("image", "ID", "metadata"), ("source_split", "qa_count"))

    def expand(self, row: SourceRow, split: str) -> Iterator[Example]:
        """Turn a row into its questions; those that say `has_image: false` come without the image."""
        where, values, _ = row
        person = text(values, "ID", where)
        ref = picture(values["image"], self.place, where) if values["image"] is not None else None
        for number, each in enumerate(records(values["metadata"], "metadata", where)):
            images = (ref,) if ref is not None and each.get("has_image", True) else ()
            question, answer = text(each, "Question", where), text(each, "Answer", where)
            yield Example(f"{split}/{row.number}/{number}", question, answer, images, person, where=where)

    def items(self) -> Iterator[Item]:
        """Ask the rows' own questions."""
        for split, folder in zip(("forget", "retain"), self.training_splits, strict=True):
            for example in self.examples(folder):
                task = "image" if example.images else "text"
                yield Item(f"{split}/{example.id}", split, task, example, self.protocol.max_new_tokens, (example.answer,))

    def measure(self, item: Item, answer: Answer) -> Mapping[str, float]:
        """Measure overlap, probability and refusal."""
        return {
            "rougeL": rouge(answer.said, item.example.answer)["rougeL"].f1,
            "exact_match": float(exact_match(answer.said, item.example.answer)),
            "probability": probability(answer.losses[0]),
            "refused": float(is_refusal(answer.said)),
        }
