"""What the inspector looks at, without any page: answers token by token, what the teacher says, attacks on one question.

Shapes: v vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from vgid.data.example import Example, ImageRef
from vgid.errors import DataError
from vgid.evaluation.generation import generate, greedy
from vgid.evaluation.inference import frozen
from vgid.evaluation.metrics import key_fact
from vgid.models.loading import LoadedModel
from vgid.perturbation import NoiseConfig, perturb_row

MAX_NEW_TOKENS = 48
MOST_LETTERS = 2000
"""Of a question."""
ALTERNATIVES = 5
TRIES = 4
"""Of each kind of attack."""
SEED = ("inspect",)


class Choice(NamedTuple):
    """A token that might have come, and how likely it was."""

    text: str
    probability: float


class Step(NamedTuple):
    """The token that came, and the likeliest ones at its place, best first."""

    chosen: Choice
    likeliest: tuple[Choice, ...]


class Said(NamedTuple):
    """An answer and its tokens; the last one may be the end of the turn."""

    text: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Way:
    """One way of asking: which attack, how it changes the question, and the question as it is put."""

    attack: str
    name: str
    example: Example


class Tried(NamedTuple):
    """What came of one way of asking: by model the answer, and whether it tells the recorded fact, where there is one."""

    way: Way
    answers: Mapping[str, str]
    told: Mapping[str, bool] | None


def example_of(question: str, picture: bytes | None = None, known: Example | None = None) -> Example:
    """What is asked, as an example; `known` is the row it comes from, if it does, with its recorded answer.

    Raises:
        DataError: no question, one that is too long, or a picture that cannot be used.
    """
    question = question.strip()
    if not question:
        raise DataError("there is no question", fix="type one")
    if len(question) > MOST_LETTERS:
        raise DataError("the question is too long", expected=f"at most {MOST_LETTERS} characters", got=str(len(question)))
    images = () if picture is None else (encoded(ImageRef(data=picture).open()),)
    if known is not None:
        return replace(known, question=question, images=images)
    return Example("inspected", question, "", images)


def ask(loaded: LoadedModel, example: Example, beginning: str = "", max_new_tokens: int = MAX_NEW_TOKENS) -> Said:
    """The greedy answer, token by token; `beginning` is put into the model's mouth and is no part of the answer.

    Raises:
        DataError: the processor refuses the row, or it does not fit the model's context.
    """
    row = begun(loaded.encoder, example, beginning) if beginning.strip() else loaded.encoder.row(example, answer=None)
    return say(loaded, loaded.encoder.collate([row], side="left"), max_new_tokens)


def begun(encoder: Encoder, example: Example, beginning: str) -> EncodedRow:
    """A prompt and the first tokens of an answer, as they are when the model begins so by itself."""
    beginning = beginning.strip()
    row = encoder.row(example, answer=beginning)
    tokens = row.text["input_ids"][row.prompt_length :].tolist()
    said = (len(encoder.tokenizer.decode(tokens[:count], skip_special_tokens=True).strip()) for count in range(1, len(tokens) + 1))
    width = row.prompt_length + next(count for count, length in enumerate(said, 1) if length >= len(beginning))
    return replace(row, text={name: value[:width] for name, value in row.text.items()}, prompt_length=width)


def say(loaded: LoadedModel, batch: Batch, max_new_tokens: int = MAX_NEW_TOKENS) -> Said:
    """Answer one prompt greedily; the model is left as it was."""
    with frozen(loaded.model), greedy(loaded, max_new_tokens) as model:
        inputs = batch.to(model.device).model_inputs
        done = model.generate(**inputs, output_logits=True, return_dict_in_generate=True)
    tokens = done.sequences[0, inputs["input_ids"].shape[1] :]
    tokenizer = loaded.processor.tokenizer
    steps = tuple(_step(tokenizer, int(token), logits[0]) for token, logits in zip(tokens, done.logits, strict=True))
    return Said(tokenizer.decode(tokens, skip_special_tokens=True).strip(), steps)


def _step(tokenizer: Any, token: int, logits: Tensor) -> Step:
    p = logits.float().softmax(-1)  # [v]
    best = p.topk(min(ALTERNATIVES, len(p)))
    likeliest = tuple(
        Choice(tokenizer.decode([each]), value) for each, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    )
    return Step(Choice(tokenizer.decode([token]), float(p[token])), likeliest)


class Lesson(NamedTuple):
    """What the teacher says when it is given only part of what it is given, and the picture it sees with noise."""

    said: Mapping[str, Said]
    picture: Image.Image | None


def teach(loaded: LoadedModel, example: Example, noise: NoiseConfig, instruction: str) -> Lesson:
    """Ask the untouched model plainly, with noise, with the instruction, and with both: what VGID's student learns from.

    Raises:
        DataError: the processor refuses the row, or it does not fit the model's context.
        ModelError: the noise does not fit the processor's pixels.
    """
    still = NoiseConfig(kind="none")
    given = {"as it is": (still, None), "noise": (noise, None), "instruction": (still, instruction), "both": (noise, instruction)}
    said, picture = {}, None
    for name, (kind, text) in given.items():
        row = perturb_row(loaded.encoder, example, kind, seed=SEED, instruction=text, answer=None)
        said[name] = say(loaded, loaded.encoder.collate([row], side="left"))
        picture = picture_of(loaded.processor, row) if name == "noise" else picture
    return Lesson(said, picture)


def picture_of(processor: Any, row: EncodedRow) -> Image.Image | None:
    """A row's picture as the model sees it; None where the processor gives no plain picture."""
    x = row.images.get("pixel_values")
    if x is None or x.ndim != 4 or x.shape[:2] != (1, 3):
        return None
    images = processor.image_processor
    mean, std = (
        torch.tensor(getattr(images, name, None) or other).view(3, 1, 1)
        for name, other in (("image_mean", [0.5] * 3), ("image_std", [0.5] * 3))
    )
    pixels = ((x[0].float().cpu() * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))


def ways(example: Example) -> Iterator[Way]:
    """Ways of asking the same that training may not have used: a few of each kind, none with any part of an answer."""
    yield Way("plain", "as it is", example)
    for text in rewordings(example.question)[:TRIES]:
        yield Way("other words", text, replace(example, question=text))
    for template in TEMPLATES[:TRIES]:
        text = template.format(question=example.question)
        yield Way("talked into it", text, replace(example, question=text))
    for transform in TRANSFORMS[:TRIES] if example.images else ():
        changed = tuple(encoded(transform(ref.open(), 0)) for ref in example.images)
        yield Way("other picture", transform.__name__, replace(example, images=changed))
    drawn = encoded(typeset(example, side=448, letters=32))
    yield Way("words in the picture", "question as a picture", replace(example, question=PROMPT, images=(drawn,)))


def attack(models: Mapping[str, LoadedModel], example: Example) -> list[Tried]:
    """Ask all models in all ways.

    Raises:
        DataError: a processor refuses a row, or it does not fit the model's context.
    """
    tried: Sequence[Way] = list(ways(example))
    said = {name: generate(loaded, [way.example for way in tried], max_new_tokens=MAX_NEW_TOKENS) for name, loaded in models.items()}
    recorded = bool(example.answer)
    results = []
    for place, way in enumerate(tried):
        answers = {name: texts[place] for name, texts in said.items()}
        told = {name: key_fact(text, example.keywords, example.answer) for name, text in answers.items()} if recorded else None
        results.append(Tried(way, answers, told))
    return results
