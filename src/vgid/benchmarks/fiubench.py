"""FIUBench (arXiv 2411.03554): faces of fictitious people with private facts; exact match of keywords, truth ratios, privacy extraction.

`full.json` holds one JSON object per line in spite of its name, and `split.json` the identities of each split; images are in a zip archive
or unpacked. As in the paper, the first 400 identities are used, with 20 questions each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar

from pydantic import Field

from vgid.benchmarks.base import BENCHMARKS, Answer, Answered, Benchmark, Figure, Item, Metric, PublishedProtocol, by_task
from vgid.benchmarks.common import truthful
from vgid.benchmarks.common.files import Source, json_rows
from vgid.benchmarks.common.values import SourceRow, records, text, texts
from vgid.data.example import Example, ImageRef
from vgid.errors import DataError
from vgid.evaluation.overlap import keyword_recall
from vgid.reading import read_text

FIELDS = ("unique_id", "image_path", "qa_list")
"""Fields that every identity must have."""


@BENCHMARKS.register("fiubench")
class FIUBench(Benchmark):
    """FIUBench: questions about private facts of fictitious faces, and reworded ones on the forget set.

    `forget_set` is a percentage of the identities.
    """

    name = "fiubench"
    title = "FIUBench"
    paper = "arXiv 2411.03554"
    version = 1
    source = Source("gray311/FIUBench")
    forget_sets = ("5", "1", "10")
    main_metrics = ("exact_match",)
    metrics: ClassVar[Mapping[str, Metric]] = truthful.METRICS | {
        "exact_match": Metric("up", "mean share of keywords that the answer holds"),
        "ape": Metric("up", "the same over reworded questions (adversarial privacy extraction)"),
    }

    class Protocol(PublishedProtocol):
        """How FIUBench asks.

        Attributes:
            max_new_tokens: length of an answer, in tokens.
            identities: number of identities to use, from the first on.
            questions: number of questions about each, from the first on.
            capitalize: write questions and single answers with a capital first letter and all else in small letters, as the released script
                does.
            truth_ratio: `per_question`, or `released` with one mean over the perturbed answers of a whole set.
            forget_quality: compare with a model that never saw the forget set, which must then be given.
        """

        max_new_tokens: int = Field(default=50, ge=1)
        identities: int = Field(default=400, ge=1)
        questions: int = Field(default=20, ge=1)
        capitalize: bool = True
        truth_ratio: truthful.Averaging = "per_question"
        forget_quality: bool = True

    @property
    def needs_reference(self) -> bool:
        """Whether the figures need the answers of a model that never saw the forget set."""
        return bool(self.protocol.forget_quality)

    @property
    def training_splits(self) -> tuple[str, str]:
        """Names of the forget split and the retain split; `retain` is everybody who is in no forget set."""
        return f"forget{self.forget_set}", "retain"

    def rows(self, split: str) -> Iterator[SourceRow]:
        """Stream the identities of a split."""
        is_member = self._is_member(split)
        rows = islice(json_rows(self.place.root / "full.json", FIELDS), self.protocol.identities)
        yield from (row for row in rows if is_member(str(row.values["unique_id"])))

    def expand(self, row: SourceRow, split: str) -> Iterator[Example]:
        """Turn an identity into its questions."""
        person, ref = self._identity(row)
        for number, each in enumerate(self._questions(row)):
            question, answer = self._said(text(each, "question", row.where)), self._said(text(each, "answer", row.where))
            keywords = texts(each.get("keywords"), "keywords", row.where)
            yield Example(f"{split}/{person}/{number}", question, answer, (ref,), person, keywords, where=row.where)

    # -- evaluation -------------------------------------------------------------------------------------------------------

    def items(self) -> Iterator[Item]:
        """Ask about identities to forget and to retain, and with other wordings about those to forget."""
        retain = f"retain{self.forget_set}"
        for split, members in (("forget", self.training_splits[0]), ("retain", retain if retain in self._splits else "retain")):
            for row in self.rows(members):
                yield from self._items(split, row)

    def measure(self, item: Item, answer: Answer) -> Mapping[str, float]:
        """Measure the keywords of every answer, and the rest where candidates were scored."""
        found = keyword_recall(answer.said, item.example.keywords)
        if item.task == "reworded":
            return {"ape": found}
        return truthful.measure_answer(item, answer, among_options=False) | {"exact_match": found}

    def measure_all(self, answered: Sequence[Answered]) -> list[Mapping[str, float]]:
        """Measure the answers to one task, with the averaging of truth ratios that the protocol sets."""
        measured = [self.measure(*each) for each in answered]
        if answered[0].item.task == "reworded":
            return measured
        ratios = truthful.measure_task(answered, self.protocol.truth_ratio, among_options=False)
        return [{**one, "truth_ratio": ratio["truth_ratio"]} for one, ratio in zip(measured, ratios, strict=True)]

    def aggregates(self, answered: Sequence[Answered], reference: Sequence[Answered] | None, seed: int) -> list[Figure]:
        """Return model utility on the retain set, and forget quality on the forget set."""
        kept = {key: self.measure_all(each) for key, each in by_task(answered).items() if key == ("retain", "qa")}
        figures = [truthful.utility_figure(kept, answered, seed)]
        if self.protocol.forget_quality:
            figures += truthful.forget_quality_figures(answered, reference, "forget", "qa", self.protocol.truth_ratio, seed)
        return figures

    @cached_property
    def _splits(self) -> dict[str, frozenset[str]]:
        file = self.place.root / "split.json"
        content = read_text(file)
        try:
            splits = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise DataError("the list of splits cannot be read", where=file, got=type(error).__name__, fix="download it again") from error
        if not isinstance(splits, dict) or not all(isinstance(members, list) for members in splits.values()):
            raise DataError(
                "the list of splits has another layout", where=file, expected='{"forget5": [ids], ...}', got=type(splits).__name__
            )
        return {name: frozenset(map(str, members)) for name, members in splits.items()}

    def _is_member(self, split: str) -> Callable[[str], bool]:
        """Return whether an identity is in a split, as a function; `retain` that is not listed is everybody in no forget set."""
        if split in self._splits:
            return self._splits[split].__contains__
        if split != "retain":
            raise DataError(f"there is no split {split!r}", where=self.place.root / "split.json", expected=", ".join(self._splits))
        forgotten = frozenset[str]().union(*(members for name, members in self._splits.items() if name.startswith("forget")))
        return lambda person: person not in forgotten

    def _identity(self, row: SourceRow) -> tuple[str, ImageRef]:
        person = text({"unique_id": str(row.values["unique_id"])}, "unique_id", row.where)
        return person, self.place.pictures.get(text(row.values, "image_path", row.where), row.where)

    def _questions(self, row: SourceRow) -> list[dict[str, Any]]:
        return records(row.values["qa_list"], "qa_list", row.where)[: self.protocol.questions]

    def _said(self, words: str) -> str:
        return words.capitalize() if self.protocol.capitalize else words

    def _items(self, split: str, row: SourceRow) -> Iterator[Item]:
        where = row.where
        person, ref = self._identity(row)
        for number, each in enumerate(self._questions(row)):
            answer, keywords = self._said(text(each, "answer", where)), texts(each.get("keywords"), "keywords", where)
            again = self._said(text(each, "paraphrased_answer", where))
            candidates = (answer, again, *texts(each.get("perturbed_answer"), "perturbed_answer", where))
            questions = [("qa", text(each, "question", where), candidates)]
            if split == "forget":
                reworded = texts(each.get("paraphrased_question"), "paraphrased_question", where)
                questions += [("reworded", question, ()) for question in reworded]
            for k, (task, question, scored) in enumerate(questions):
                key = f"{split}/{task}/{person}/{number}/{k}"
                example = Example(key, self._said(question), answer, (ref,), person, keywords, where=where)
                yield Item(key, split, task, example, self.protocol.max_new_tokens, scored)
