"""Tasks and models for inspect_ai, which finds this file as an extension: `inspect eval vgid/rows -T forget=... --model vgid/FOLDER`.

Its log holds the questions, pictures, recorded answers and answers of the model; `--no-log-samples` leaves them out.
"""

from __future__ import annotations

import base64
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    Content,
    ContentImage,
    ContentText,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, Value, metric, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.tool import ToolChoice, ToolInfo

from vgid.attacks.asking import MAX_NEW_TOKENS
from vgid.attacks.served import chat_messages
from vgid.benchmarking import questions
from vgid.benchmarks.base import Item
from vgid.data.example import IMAGE, Example, ImageRef, Turn
from vgid.errors import ConfigError, DataError
from vgid.evaluation.generation import generate as answers_of
from vgid.models.loading import load_model

ROLES = {"user": ChatMessageUser, "assistant": ChatMessageAssistant, "system": ChatMessageSystem}


@task
def benchmark(name: str, data: str | None = None, forget_part: str | int | None = None, protocol: dict[str, Any] | None = None) -> Task:
    """Ask a benchmark's questions.

    Args:
        name: name of the benchmark, as `vgid evaluate --benchmark` takes it.
        data: its data: a folder, a file or a hub id; None for a benchmark that makes its own.
        forget_part: label of the forget set; None for the first.
        protocol: settings that differ from the published ones.

    Returns:
        The task; its figures are those of `vgid evaluate`, by `split/task/metric`.

    Raises:
        ConfigError: there is no such benchmark or setting, or its figures need a reference model.
        DataError: the data are not there, or bad.
    """
    part = None if forget_part is None else str(forget_part)
    return _task(questions.describe(name=name, data=data, forget_part=part, protocol=protocol))


@task
def rows(forget: str | None = None, retain: str | None = None) -> Task:
    """Ask own rows.

    Args:
        forget: file or folder with rows to forget.
        retain: file or folder with rows to keep.

    Returns:
        The task, with accuracy (key facts), ROUGE-L and refusals by split.

    Raises:
        ConfigError: neither is given.
        DataError: rows are bad.
    """
    return _task(questions.describe(forget=forget, retain=retain))


def _task(described: str) -> Task:
    asked, _ = questions.opened(described)
    return Task(
        dataset=MemoryDataset([_sample(item) for item in questions.asked(asked)], name=asked.name),
        solver=answer(),
        scorer=measures(described),
        metrics=[figures(described)],
        version=asked.version,
    )


def _sample(item: Item) -> Sample:
    turns: list[ChatMessage] = [
        ROLES[turn["role"]](content=[_content(part) for part in turn["content"]]) for turn in chat_messages(item.example)
    ]
    metadata = {"split": item.split, "task": item.task, "max_new_tokens": item.max_new_tokens}
    return Sample(input=turns, target=item.example.answer, id=item.key, metadata=metadata)


def _content(part: dict[str, Any]) -> Content:
    return ContentText(text=part["text"]) if part["type"] == "text" else ContentImage(image=part["image_url"]["url"])


@solver
def answer() -> Solver:
    """Answer with greedy decoding, in as many tokens as the benchmark gives the question."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        return await generate(state, max_tokens=state.metadata["max_new_tokens"], temperature=0.0)

    return solve


@scorer(metrics=[])
def measures(described: str) -> Scorer:
    """Measure each answer by the benchmark's metrics; the score's value is the first of its main metrics."""

    async def score(state: TaskState, target: Target) -> Score:
        asked, _ = questions.opened(described)
        said = state.output.completion
        values = questions.measured(described, str(state.sample_id), said)
        main = next((values[name] for name in asked.main_metrics if name in values), next(iter(values.values())))
        return Score(value=main, answer=said, metadata=dict(values))

    return score


@metric
def figures(described: str) -> Metric:
    """Average the answers by split, task and metric, as `vgid evaluate` does."""

    def average(scores: list[SampleScore]) -> Value:
        said = {str(each.sample_id): each.score.answer or "" for each in scores}
        found = questions.figures(described, said)
        return {f"{each.split}/{each.task}/{each.metric}": each.value for each in found}

    return average


# -- models ---------------------------------------------------------------------------------------------------------------


@modelapi(name="vgid")
class Checkpoint(ModelAPI):
    """A checkpoint that `vgid` loads, asked with its pictures: inspect_ai's own provider for transformers takes text only.

    Args:
        model_name: folder or hub id.
        base_url: not used.
        api_key: not used.
        config: settings of the generation; only greedy decoding is offered.
        adapter: folder of an adapter (`-M adapter=FOLDER`).
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - as the base class has it
        adapter: str | None = None,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        self._loaded = load_model(model_name, adapter=adapter)

    def max_connections(self) -> int:
        """One question at a time: the model is in this process."""
        return 1

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Answer a conversation with greedy decoding.

        Raises:
            ConfigError: sampling or tools are asked for.
            DataError: the conversation does not end with the user's turn, or holds something else than texts and pictures as data URIs.
        """
        if config.temperature or tools:
            raise ConfigError(
                "models of vgid answer greedily and without tools", expected="temperature 0 and no tools", got="another request"
            )
        row = _row(input)
        (said,) = answers_of(self._loaded, [row], max_new_tokens=config.max_tokens or MAX_NEW_TOKENS)
        made = ModelOutput.from_content(self.model_name, said)
        made.usage = ModelUsage()  # tokens are not counted
        return made


def _row(input: list[ChatMessage]) -> Example:
    """A conversation as a row, with a mark in the text for each picture."""
    if not input or input[-1].role != "user":
        raise DataError("a conversation must end with the user's turn", got=input[-1].role if input else "nothing")
    pictures: list[ImageRef] = []
    turns: list[Turn] = []
    for message in input:
        text = ""
        for part in [ContentText(text=message.content)] if isinstance(message.content, str) else message.content:
            if isinstance(part, ContentText):
                text += part.text
            elif isinstance(part, ContentImage) and part.image.startswith("data:") and ";base64," in part.image:
                pictures.append(ImageRef(data=base64.b64decode(part.image.partition(",")[2])))
                text += IMAGE
            else:
                raise DataError("a part of a turn cannot be asked", expected="text, or a picture as a data URI", got=part.type)
        if message.role not in ROLES:
            raise DataError("a turn cannot be asked", expected=", ".join(ROLES), got=message.role)
        turns.append(Turn(message.role, text))
    return Example("", turns[-1].text, "", tuple(pictures), context=tuple(turns[:-1]))
