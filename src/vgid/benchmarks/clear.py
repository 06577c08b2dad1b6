"""CLEAR (arXiv 2410.18057): TOFU's fictitious authors with generated faces; captions of images, names, and questions in text.

Evaluation follows the released configuration: captions and names of the perturbed forget and retain sets, and faces and places of the real
world. The wording of the requests for a caption is ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import ClassVar

from pydantic import Field

from vgid.benchmarks.base import BENCHMARKS, Answer, Answered, Benchmark, Figure, Item, Metric, PublishedProtocol, by_task
from vgid.benchmarks.common import truthful
from vgid.benchmarks.common.files import Source, need_shards, parquet_rows, picture, shards
from vgid.benchmarks.common.values import SourceRow, optional_text, text, texts
from vgid.data.example import Example

CAPTION_REQUESTS = (
    "What does this picture show?",
    "Please describe this picture.",
    "Say in detail what is in the picture.",
    "What can be seen here?",
    "Give a description of what the picture shows.",
    "Who or what is the picture mainly about?",
    "Tell me what is going on in this picture.",
    "Explain what you see in the picture.",
    "Which scene or things does the picture show?",
)
"""Requests for a caption; the protocol's seed draws one for each row."""
NAME_REQUEST = "The person in the picture is called"
"""The beginning of a sentence that the model completes with a name."""


@BENCHMARKS.register("clear")
class CLEAR(Benchmark):
    """CLEAR: captions and names of fictitious authors, and faces and places of the real world.

    `forget_set` is a percentage of the authors, with two digits.
    """

    name = "clear"
    title = "CLEAR"
    paper = "arXiv 2410.18057"
    version = 1
    source = Source("therem/CLEAR")
    forget_sets = ("01", "05", "10")
    main_metrics = ("rougeL_recall",)
    metrics: ClassVar[Mapping[str, Metric]] = truthful.METRICS

    class Protocol(PublishedProtocol):
        """How CLEAR asks.

        Attributes:
            max_new_tokens: length of an answer, in tokens.
            truth_ratio: `per_question` as in the paper; `released` takes one mean over the perturbed answers of a whole set.
            forget_quality: compare with a model that never saw the forget set, which must then be given.
            text: include the questions in text in the rows for unlearning.
            seed: random seed of the wording in which a caption is asked for.
        """

        max_new_tokens: int = Field(default=300, ge=1)
        truth_ratio: truthful.Averaging = "per_question"
        forget_quality: bool = True
        text: bool = True
        seed: int = Field(default=0, ge=0)

    @property
    def needs_reference(self) -> bool:
        """Whether the figures need the answers of a model that never saw the forget set."""
        return bool(self.protocol.forget_quality)

    @property
    def training_splits(self) -> tuple[str, str]:
        """Names of the forget split and the retain split."""
        tofu = "+tofu" if self.protocol.text else ""
        return f"forget{self.forget_set}{tofu}", f"retain{100 - int(self.forget_set)}{tofu}"

    def rows(self, split: str) -> Iterator[SourceRow]:
        """Stream rows with images and, in splits with `+tofu`, rows in text."""
        files = need_shards(self.place.root, split)
        yield from parquet_rows(files, ("image", "caption", "name"), ("question", "answer"))

    def expand(self, row: SourceRow, split: str) -> Iterator[Example]:
        """Turn a row into a request for a caption, or a question in text."""
        where, values, number = row
        name = optional_text(values, "name")
        if values.get("image") is None:
            yield Example(f"{split}/{number}", text(values, "question", where), text(values, "answer", where), (), name, where=where)
            return
        ref = picture(values["image"], self.place, where)
        yield Example(
            f"{split}/{number}",
            self._request(split, number),
            text(values, "caption", where),
            (ref,),
            text(values, "name", where),
            where=where,
        )

    # -- evaluation -------------------------------------------------------------------------------------------------------

    def items(self) -> Iterator[Item]:
        """Ask for captions and names to forget and to retain, and about the real world."""
        retain = "retain_perturbed"
        if not shards(self.place.root, retain):
            retain = f"{self.training_splits[1].removesuffix('+tofu')}_perturbed"
        for split, folder in (("forget", f"forget{self.forget_set}_perturbed"), ("retain", retain)):
            yield from self._perturbed(split, folder)
        for split in ("real_faces", "real_world"):
            yield from self._real(split)

    def measure(self, item: Item, answer: Answer) -> Mapping[str, float]:
        """Measure an answer; captions have a probability of their own, names and the real world one among options."""
        return truthful.measure_answer(item, answer, among_options=item.task != "caption")

    def measure_all(self, answered: Sequence[Answered]) -> list[Mapping[str, float]]:
        """Measure the answers to one task, with the averaging of truth ratios that the protocol sets."""
        among_options = answered[0].item.task != "caption"
        return truthful.measure_task(answered, self.protocol.truth_ratio, among_options=among_options)

    def aggregates(self, answered: Sequence[Answered], reference: Sequence[Answered] | None, seed: int) -> list[Figure]:
        """Return model utility over what must be retained, and forget quality on the captions to forget."""
        kept = {key: self.measure_all(each) for key, each in by_task(answered).items() if key[0] != "forget"}
        figures = [truthful.utility_figure(kept, answered, seed)]
        if self.protocol.forget_quality:
            figures += truthful.forget_quality_figures(answered, reference, "forget", "caption", self.protocol.truth_ratio, seed)
        return figures

    def notes(self) -> list[str]:
        """Say where the paper and its released script differ."""
        return ["The released script takes one mean over the perturbed answers of a whole set; `truth_ratio=released` does the same."]

    def _request(self, split: str, number: int) -> str:
        return Random(f"{self.protocol.seed}/{split}/{number}").choice(CAPTION_REQUESTS)

    def _perturbed(self, split: str, folder: str) -> Iterator[Item]:
        required = ("image", "caption", "name", "paraphrased_caption", "perturbed_captions", "perturbed_names")
        for row in parquet_rows(need_shards(self.place.root, folder), required):
            where, values, number = row
            name, caption = text(values, "name", where), text(values, "caption", where)
            ref = picture(values["image"], self.place, where)
            wrong = texts(values["perturbed_captions"], "perturbed_captions", where)
            # Some revisions hold several paraphrases; the first is compared.
            again = texts(values["paraphrased_caption"], "paraphrased_caption", where)[0]
            for task, question, answer, candidates in (
                ("caption", self._request(split, number), caption, (caption, again, *wrong)),
                ("name", NAME_REQUEST, name, (name, name, *texts(values["perturbed_names"], "perturbed_names", where))),
            ):
                key = f"{split}/{task}/{number}"
                example = Example(key, question, answer, (ref,), name, where=where)
                yield Item(key, split, task, example, self.protocol.max_new_tokens, candidates)

    def _real(self, split: str) -> Iterator[Item]:
        for row in parquet_rows(need_shards(self.place.root, split), ("image", "answer", "options"), ("question",)):
            where, values, number = row
            answer = text(values, "answer", where)
            question = NAME_REQUEST if split == "real_faces" else text(values, "question", where)
            key = f"{split}/options/{number}"
            example = Example(key, question, answer, (picture(values["image"], self.place, where),), answer, where=where)
            candidates = (answer, answer, *texts(values["options"], "options", where))
            yield Item(key, split, "options", example, self.protocol.max_new_tokens, candidates)
