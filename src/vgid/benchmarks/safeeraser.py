"""SafeEraser (arXiv 2502.12520): harmful questions about images to unlearn, harmless ones to retain.

`all_train.json` is a JSON list. Each entry has harmful questions, a model's answers to them about a harmful image and about a drawn, safe
one, and four harmless questions. The published judge is a hosted language model; the results name the judge used here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, ClassVar

from pydantic import Field

from vgid.benchmarks.base import BENCHMARKS, Answer, Answered, Benchmark, Item, Metric, PublishedProtocol
from vgid.benchmarks.common.files import json_rows
from vgid.benchmarks.common.values import SourceRow, mapping, records, text
from vgid.data.example import Example
from vgid.evaluation.judges import Verdict, load_judge, verdicts
from vgid.evaluation.overlap import rouge

HARMLESS = ("UnharmPair_text1", "UnharmPair_text2", "UnharmPair_image1", "UnharmPair_image2")
"""Fields with an entry's harmless questions."""
SAFE = "safe_picture"
"""The task of harmful questions about the safe image."""


@BENCHMARKS.register("safeeraser")
class SafeEraser(Benchmark):
    """SafeEraser: harmful questions about harmful and about safe images, and harmless ones.

    There is one forget set, `all`.
    """

    name = "safeeraser"
    title = "SafeEraser"
    paper = "arXiv 2502.12520"
    version = 1
    source = None
    forget_sets = ("all",)
    main_metrics = ("asr", "rougeL_precision")
    metrics: ClassVar[Mapping[str, Metric]] = {
        "asr": Metric("down", "attack success rate: harmful answers to harmful questions", "down"),
        "rr": Metric("up", "refusals of harmful questions", "up"),
        "sarr": Metric("down", "refusals where the picture is safe"),
        "refused": Metric("down", "refusals of harmless questions"),
        "rougeL_precision": Metric("up", "ROUGE-L precision of answers to harmless questions"),
    }

    class Protocol(PublishedProtocol):
        """How SafeEraser asks.

        Attributes:
            max_new_tokens: length of an answer, in tokens.
            judge: `rule`, which judges by words on this machine, or `module:function` (`vgid.evaluation.judges`).
            file: name of the file with the list.
        """

        max_new_tokens: int = Field(default=256, ge=1)
        judge: str = "rule"
        file: str = "all_train.json"

    @property
    def training_splits(self) -> tuple[str, str]:
        """Names of the split of harmful and the split of harmless questions."""
        return "unsafe", "unharm"

    def rows(self, split: str) -> Iterator[SourceRow]:
        """Stream the entries of the list."""
        root = self.place.root
        required = ("image_id", "SDImage_path", "unsafe_pairs", *HARMLESS)
        yield from json_rows(root if root.is_file() else root / self.protocol.file, required)

    def expand(self, row: SourceRow, split: str) -> Iterator[Example]:
        """Turn an entry into harmful questions with the answers to unlearn, or harmless ones with the answers to retain."""
        where, values, number = row
        ref, tags = self.place.pictures.get(text(values, "image_id", where), where), (_category(values),)
        if split == "unsafe":
            for k, each in enumerate(records(values["unsafe_pairs"], "unsafe_pairs", where)):
                answer = text(each, "model_response", where)
                yield Example(f"unsafe/{number}/{k}", text(each, "question", where), answer, (ref,), str(number), tags=tags, where=where)
            return
        for name in HARMLESS:
            pair = mapping(values[name], name, where)
            question, answer = text(pair, "Question", where), text(pair, "Answer", where)
            yield Example(f"unharm/{number}/{name}", question, answer, (ref,), str(number), tags=tags, where=where)

    def items(self) -> Iterator[Item]:
        """Ask harmful questions about both images, then harmless ones."""
        tokens = self.protocol.max_new_tokens
        for row in self.rows("unsafe"):
            for example in self.expand(row, "unsafe"):
                yield Item(f"forget/{example.id}", "forget", "unsafe", example, tokens)
            safe = self.place.pictures.get(text(row.values, "SDImage_path", row.where), row.where)
            for k, each in enumerate(records(row.values["unsafe_pairs"], "unsafe_pairs", row.where)):
                key = f"retain/{SAFE}/{row.number}/{k}"
                answer = text(each, "sd_response", row.where)
                example = Example(key, text(each, "question", row.where), answer, (safe,), str(row.number), where=row.where)
                yield Item(key, "retain", SAFE, example, tokens)
            for example in self.expand(row, "unharm"):
                yield Item(f"retain/{example.id}", "retain", "unharm", example, tokens)

    def measure(self, item: Item, answer: Answer) -> Mapping[str, float]:
        """Measure one answer by the judge."""
        return self.measure_all([Answered(item, answer)])[0]

    def measure_all(self, answered: Sequence[Answered]) -> list[Mapping[str, float]]:
        """Measure the answers to one task, which the judge sees together."""
        given = verdicts(load_judge(self.protocol.judge), [(each.item.example.question, each.answer.said) for each in answered])
        return [_metrics(each, verdict) for each, verdict in zip(answered, given, strict=True)]

    def notes(self) -> list[str]:
        """Name the judge, and say which measures differ from the published ones."""
        return [
            f"Judge: {self.protocol.judge}. Published figures come from a hosted language model: not comparable.",
            "One greedy answer a question; the released script draws three. ROUGE-L is taken against the recorded answer.",
        ]


def _metrics(each: Answered, verdict: Verdict) -> dict[str, float]:
    if each.item.task == "unsafe":
        return {"asr": float(verdict.harmful), "rr": float(verdict.refused)}
    if each.item.task == SAFE:
        return {"sarr": float(verdict.refused)}
    overlap = rouge(each.answer.said, each.item.example.answer)["rougeL"].precision
    return {"refused": float(verdict.refused), "rougeL_precision": overlap}


def _category(values: Mapping[str, Any]) -> str:
    """Return the entry's category; without one, the name of its image's folder."""
    given = values.get("category")
    return given if isinstance(given, str) and given else PurePosixPath(str(values["image_id"])).parent.name
