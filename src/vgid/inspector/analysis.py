"""What the inspector computes, without a page: answers token by token, answers of the teacher, attacks with one question.

Shapes: v vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vgid.attacks.figstep import PROMPT, typeset
from vgid.attacks.image_rephrase import TRANSFORMS, encoded
from vgid.attacks.jailbreak import TEMPLATES
from vgid.attacks.paraphrase import rewordings
from vgid.data.batching import Batch, EncodedRow, Encoder
from vgid.data.example import Example, ImageRef, altered
from vgid.errors import DataError
from vgid.evaluation.generation import generate, greedy
from vgid.evaluation.inference import frozen
from vgid.evaluation.metrics import key_fact
from vgid.models.loading import LoadedModel
from vgid.perturbation import NoiseConfig, perturb_row

MAX_NEW_TOKENS = 48
"""Tokens of an answer, at most."""
MAX_CHARACTERS = 2000
"""Characters of a question, at most."""
ALTERNATIVES = 5
"""Likeliest tokens to show at each place of an answer."""
PROMPTS_PER_ATTACK = 4
"""Prompts of each attack, at most; a few, so that an answer comes within seconds."""
SEED = ("inspect",)
"""Seed of the noise, so that the same question always gives the same picture."""


class TokenChoice(NamedTuple):
    """A token and its probability."""

    text: str
    probability: float


class AnswerToken(NamedTuple):
    """The token that was generated, and the likeliest ones at its place, best first."""

    chosen: TokenChoice
    likeliest: tuple[TokenChoice, ...]


class Answer(NamedTuple):
    """An answer and its tokens; the last token may be the end of the turn."""

    text: str
    tokens: tuple[AnswerToken, ...]


class TeacherAnswers(NamedTuple):
    """Answers of the teacher to the plain question and to perturbed ones, and the picture with noise as the teacher gets it."""

    answers: Mapping[str, Answer]
    picture: Image.Image | None


@dataclass(frozen=True)
class AttackPrompt:
    """One way to ask a question again.

    Attributes:
        attack: the kind of attack.
        variant: how the question or its picture is changed.
        example: the changed question.
    """

    attack: str
    variant: str
    example: Example


class AttackOutcome(NamedTuple):
    """The answers to one prompt by model, and whether each gives the recorded fact; None where there is no recorded answer."""

    prompt: AttackPrompt
    answers: Mapping[str, str]
    recovered: Mapping[str, bool] | None


def make_example(question: str, picture: bytes | None = None, row: Example | None = None) -> Example:
    """Make an example of what was typed and uploaded.

    Args:
        question: the question as it was typed.
        picture: an image file; None asks without a picture.
        row: the row that the question is from; its recorded answer is kept.

    Returns:
        The example; without a row its answer is empty.

    Raises:
        DataError: the question is empty or too long, or the picture cannot be read.
    """
    question = question.strip()
    if not question:
        raise DataError("there is no question", fix="type one")
    if len(question) > MAX_CHARACTERS:
        raise DataError("the question is too long", expected=f"at most {MAX_CHARACTERS} characters", got=str(len(question)))
    images = () if picture is None else (encoded(ImageRef(data=picture).open()),)
    if row is not None:
        return altered(row, question=question, images=images)
    return Example("inspected", question, "", images)


def ask(loaded: LoadedModel, example: Example, beginning: str = "", max_new_tokens: int = MAX_NEW_TOKENS) -> Answer:
    """Ask one question, and answer greedily.

    Args:
        loaded: the model.
        example: the question.
        beginning: first words of the answer that the model has to continue; they are not part of the result.
        max_new_tokens: tokens to generate, at most.

    Returns:
        The answer, and the probabilities at each of its tokens.

    Raises:
        DataError: the processor refuses the question, or it does not fit the model's context.
    """
    row = begin_answer(loaded.encoder, example, beginning) if beginning.strip() else loaded.encoder.row(example, answer=None)
    return generate_answer(loaded, loaded.encoder.collate([row], side="left"), max_new_tokens)


def begin_answer(encoder: Encoder, example: Example, beginning: str) -> EncodedRow:
    """Encode a prompt with the first words of an answer, by the same tokens as if the model had generated them.

    The words are encoded as a whole answer, in the chat template, and cut after the token that completes them.

    Args:
        encoder: the model's encoder.
        example: the question.
        beginning: first words of the answer.

    Returns:
        The encoded row; all of it is prompt.
    """
    beginning = beginning.strip()
    row = encoder.row(example, answer=beginning)
    tokens = row.text["input_ids"][row.prompt_length :].tolist()
    lengths = (len(encoder.tokenizer.decode(tokens[:count], skip_special_tokens=True).strip()) for count in range(1, len(tokens) + 1))
    width = row.prompt_length + next(count for count, length in enumerate(lengths, 1) if length >= len(beginning))
    return replace(row, text={name: value[:width] for name, value in row.text.items()}, prompt_length=width)


def generate_answer(loaded: LoadedModel, batch: Batch, max_new_tokens: int = MAX_NEW_TOKENS) -> Answer:
    """Answer one encoded prompt greedily; the model is left as it was.

    Args:
        loaded: the model.
        batch: one row, padded on the left.
        max_new_tokens: tokens to generate, at most.

    Returns:
        The answer, and the probabilities at each of its tokens.
    """
    with frozen(loaded.model), greedy(loaded, max_new_tokens) as model:
        inputs = batch.to(model.device).model_inputs
        done = model.generate(**inputs, output_logits=True, return_dict_in_generate=True)
    tokens = done.sequences[0, inputs["input_ids"].shape[1] :]
    tokenizer = loaded.processor.tokenizer
    answer_tokens = tuple(_answer_token(tokenizer, int(token), logits[0]) for token, logits in zip(tokens, done.logits, strict=True))
    return Answer(tokenizer.decode(tokens, skip_special_tokens=True).strip(), answer_tokens)


def _answer_token(tokenizer: Any, token: int, logits: Tensor) -> AnswerToken:
    p = logits.float().softmax(-1)  # [v]
    best = p.topk(min(ALTERNATIVES, len(p)))
    likeliest = tuple(
        TokenChoice(tokenizer.decode([each]), value) for each, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    )
    return AnswerToken(TokenChoice(tokenizer.decode([token]), float(p[token])), likeliest)


def ask_teacher(loaded: LoadedModel, example: Example, noise: NoiseConfig, instruction: str) -> TeacherAnswers:
    """Ask the model before unlearning plainly, with noise, with the instruction, and with both, which VGID's student learns from.

    Args:
        loaded: the model before unlearning.
        example: the question.
        noise: noise on the picture.
        instruction: text before the question.

    Returns:
        The four answers by how the question was asked, and the picture with noise.

    Raises:
        DataError: the processor refuses the question, or it does not fit the model's context.
        ModelError: the noise cannot be applied to the processor's pixels.
    """
    none = NoiseConfig(kind="none")
    asked = {"as it is": (none, None), "noise": (noise, None), "instruction": (none, instruction), "both": (noise, instruction)}
    answers, picture = {}, None
    for name, (kind, text) in asked.items():
        row = perturb_row(loaded.encoder, example, kind, seed=SEED, instruction=text, answer=None)
        answers[name] = generate_answer(loaded, loaded.encoder.collate([row], side="left"))
        picture = picture_of(loaded.processor, row) if name == "noise" else picture
    return TeacherAnswers(answers, picture)


def picture_of(processor: Any, row: EncodedRow) -> Image.Image | None:
    """Turn a row's normalised pixels back into a picture.

    Args:
        processor: the model's processor; the mean and the deviation it normalises by are read.
        row: an encoded row.

    Returns:
        The picture as the model gets it; None without a picture, or where the processor cuts it into patches or tiles.
    """
    x = row.images.get("pixel_values")
    if x is None or x.ndim != 4 or x.shape[:2] != (1, 3):
        return None
    images = processor.image_processor
    mean, std = (
        torch.tensor(getattr(images, name, None) or default).view(3, 1, 1)
        for name, default in (("image_mean", [0.5] * 3), ("image_std", [0.5] * 3))
    )
    pixels = ((x[0].float().cpu() * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))


def attack_prompts(example: Example) -> Iterator[AttackPrompt]:
    """Yield a few prompts of each attack that training may not have seen; none holds any part of an answer."""
    yield AttackPrompt("plain", "as it is", example)
    for text in rewordings(example.question)[:PROMPTS_PER_ATTACK]:
        yield AttackPrompt("other words", text, altered(example, question=text))
    for template in TEMPLATES[:PROMPTS_PER_ATTACK]:
        text = template.format(question=example.question)
        yield AttackPrompt("jailbreak", text, altered(example, question=text))
    for transform in TRANSFORMS[:PROMPTS_PER_ATTACK] if example.images else ():
        changed = tuple(encoded(transform(ref.open(), 0)) for ref in example.images)
        yield AttackPrompt("changed picture", transform.__name__, replace(example, images=changed))
    drawn = encoded(typeset(example, side=448, letters=32))
    yield AttackPrompt("words in the picture", "question as a picture", altered(example, question=PROMPT, images=(drawn,)))


def run_attacks(models: Mapping[str, LoadedModel], example: Example) -> list[AttackOutcome]:
    """Give every model every attack prompt.

    Args:
        models: models by name.
        example: the question; where it has a recorded answer, answers are compared with it.

    Returns:
        One outcome for each prompt.

    Raises:
        DataError: a processor refuses a prompt, or it does not fit the model's context.
    """
    prompts = list(attack_prompts(example))
    answered = {
        name: generate(loaded, [prompt.example for prompt in prompts], max_new_tokens=MAX_NEW_TOKENS) for name, loaded in models.items()
    }
    outcomes = []
    for place, prompt in enumerate(prompts):
        answers = {name: texts[place] for name, texts in answered.items()}
        recovered = {name: key_fact(text, example.keywords, example.answer) for name, text in answers.items()} if example.answer else None
        outcomes.append(AttackOutcome(prompt, answers, recovered))
    return outcomes
