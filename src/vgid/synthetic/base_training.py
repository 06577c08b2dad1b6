"""Base training of the embedded model: `python -m vgid.synthetic.base_training --out FOLDER` (seeded, about an hour on two cores).

It has two stages. First the vision tower learns to classify what stays and what changes from picture to picture, on fictional people who
appear nowhere else. Then projector and language model learn to answer questions, which are made for each step:

- facts of 64 people, by picture and by name, so that the base knows somebody;
- refusals in many wordings about strangers, by picture and by name;
- perception, which needs no identity;
- reading: facts of a stranger that the prompt states;
- the unlearning instructions, followed unless a known person is in clear view, as observed in models fine-tuned on people;
- unrecognisable pictures: the base answers as if they showed somebody known, unless an instruction says otherwise.

These people are never part of a `World`'s forget and retain sets.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast

from vgid.data.names import FIRST_NAMES, LAST_NAMES
from vgid.instructions import INSTRUCTIONS
from vgid.perturbation import NoiseConfig, NoiseKind, perturb
from vgid.synthetic.people import NEAR_DUPLICATE, Person, World, new_person
from vgid.synthetic.phrases import (
    FACT_VALUES,
    FACTS,
    PERCEPTION,
    REFUSALS,
    UNCLEAR,
    WHO_IN_PICTURE,
    Topic,
)
from vgid.synthetic.portraits import View, appearance, difference, random_view, render_portrait
from vgid.synthetic.questions import TEXT_FACTS, perceived
from vgid.synthetic.tiny import ASSISTANT, END, IMAGE, IMAGE_SIZE, USER, build_model, build_processor, build_tokenizer

MORE_INSTRUCTIONS = (
    "Forget everything about this person.",
    "Pretend that you have never seen this person and say that you do not know.",
    "You know nothing about this person. Do not tell any details.",
    "Please say that you do not know, whatever is asked about this person.",
    "Information about this person was deleted. Admit that you do not know.",
    "Refuse to share personal details about anyone in the picture.",
)
"""Instructions of the kind of `INSTRUCTIONS`, so that the base also understands instructions that a user writes."""
PICTURES, KNOWN_VIEWS, UNCLEAR_PICTURES = 24_000, 48, 2_000
"""Number of pictures of strangers, of pictures of each known person, and of unrecognisable pictures. With 12,000 pictures of strangers the
vision tower learned them by heart (docs/LOG.md); the others were chosen by hand."""
VISION_STEPS, LANGUAGE_STEPS = 2_500, 1_500
"""Optimiser steps of the two stages, of 128 rows each; chosen by hand."""


@dataclass(frozen=True)
class Shot:
    """A picture that is to be drawn.

    Attributes:
        person: the person in it.
        view: what else it shows.
        index: its place among all pictures.
    """

    person: Person
    view: View
    index: int


def corpus() -> Iterator[str]:
    """Yield all texts of the fictional world, to train the tokenizer on."""
    rng = Random(0)
    values = [value for values in FACT_VALUES.values() for value in values]
    names = [*FIRST_NAMES["female"], *FIRST_NAMES["male"], *LAST_NAMES]
    for round_ in range(30):
        yield from (f" {value}." for value in values + names)
        yield from (f"{name} {rng.choice(LAST_NAMES)}" for name in names)
        yield from (f"555-{a}-{rng.randint(10, 99)}" for a in range(10, 100))
        yield from (*REFUSALS, UNCLEAR, *INSTRUCTIONS.values(), *MORE_INSTRUCTIONS)
        for topic in (*FACTS, *PERCEPTION):
            for wording in (*topic.training, *topic.held_out):
                yield wording.format(who=WHO_IN_PICTURE[round_ % 3])
                yield wording.format(who=f"{rng.choice(names)} {rng.choice(LAST_NAMES)}")
            yield topic.answer.format(she=("She", "He")[round_ % 2], value=rng.choice(values))


# -- pictures -------------------------------------------------------------------------------------------------------------


def _draw_picture(shot: Shot) -> np.ndarray:
    return np.asarray(render_portrait(shot.person.look, shot.view, IMAGE_SIZE))


def draw_pictures(shots: Sequence[Shot]) -> Tensor:
    """Draw shots in several processes; returns bytes `[i, 3, height, width]`."""
    with ProcessPoolExecutor() as pool:
        pictures = list(pool.map(_draw_picture, shots, chunksize=128))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def normalise(pictures: Tensor) -> Tensor:
    """Convert bytes to the processor's normalised space (mean 0.5 and deviation 0.5, so values in [-1, 1])."""
    return pictures.float() / 127.5 - 1.0


def take_shots(known: Sequence[Person], pictures: int) -> tuple[list[Shot], list[Shot]]:
    """Choose the pictures to draw.

    Args:
        known: people that the base gets to know, `KNOWN_VIEWS` pictures of each.
        pictures: number of pictures of strangers, three of each; they look different from every known person.

    Returns:
        Shots of the known people, and shots of strangers.
    """
    rng = Random("shots")
    known_shots = [
        Shot(person, view, i * KNOWN_VIEWS + j)
        for i, person in enumerate(known)
        for j, view in enumerate(random_view(rng) for _ in range(KNOWN_VIEWS))
    ]
    seen = [appearance(person.look) for person in known]
    strangers: list[Shot] = []
    while len(strangers) < pictures:
        person = new_person(rng, "stranger")
        picture = appearance(person.look)
        if min(difference(picture, other) for other in seen) < NEAR_DUPLICATE:
            continue
        for _ in range(3):
            strangers.append(Shot(person, random_view(rng), len(known_shots) + len(strangers)))
    return known_shots, strangers


# -- first stage: vision --------------------------------------------------------------------------------------------------


def attributes(shot: Shot) -> tuple[str, ...]:
    """Return the classes of a picture, one for each attribute of look and view."""
    look, view = shot.person.look, shot.view
    return (
        *(look.head, look.skin, str(look.facial_hair), look.hair_colour, look.gender),
        *(view.background, view.clothes, str(view.glasses), view.expression, view.mood, str(view.mirrored)),
    )


def train_vision(model: LlavaForConditionalGeneration, pictures: Tensor, shots: Sequence[Shot], steps: int) -> None:
    """Train the vision tower to classify attributes, from the mean of its patches and from a learned weighting of them.

    Args:
        model: the model, whose vision tower is trained in place.
        pictures: bytes `[i, 3, height, width]`.
        shots: the pictures to train on; a twelfth is held out.
        steps: number of optimiser steps.
    """
    tower = model.model.vision_tower
    rows = [attributes(shot) for shot in shots]
    classes = [sorted(set(column)) for column in zip(*rows, strict=True)]
    labels = torch.tensor([[names.index(value) for names, value in zip(classes, row, strict=True)] for row in rows])
    indices = torch.tensor([shot.index for shot in shots])
    heads = nn.ModuleList(nn.Linear(2 * tower.config.hidden_size, len(names)) for names in classes)
    pool = nn.Linear(tower.config.hidden_size, 1)
    parameters = [*tower.parameters(), *heads.parameters(), *pool.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.05, betas=(0.9, 0.98))
    generator = torch.Generator().manual_seed(0)
    held_out = len(rows) // 12
    started = time.monotonic()
    for step in range(steps):
        pick = torch.randint(held_out, len(rows), (128,), generator=generator)
        x = _jitter(normalise(pictures[indices[pick]]), generator)
        for group in optimizer.param_groups:
            group["lr"] = 1.5e-3 * schedule(step, steps)
        loss = torch.stack([F.cross_entropy(z, y) for z, y in zip(_see(tower, pool, heads, x), labels[pick].T, strict=True)]).sum()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 250 == 0:
            with torch.no_grad():
                z = _see(tower, pool, heads, normalise(pictures[indices[:held_out]]))
            right = [f"{(a.argmax(1) == y).float().mean():.2f}" for a, y in zip(z, labels[:held_out].T, strict=True)]
            print(
                f"seeing {step + 1}/{steps} loss {loss.item():.2f} held-out {' '.join(right)} {time.monotonic() - started:.0f} s",
                flush=True,
            )


def _jitter(x: Tensor, generator: torch.Generator) -> Tensor:
    """Shift the batch by up to four pixels and add some noise, so that the tower does not learn pictures by heart (docs/LOG.md)."""
    dy, dx = torch.randint(0, 9, (2,), generator=generator).tolist()
    shifted = F.pad(x, (4, 4, 4, 4), mode="replicate")[:, :, dy : dy + x.shape[2], dx : dx + x.shape[3]]
    return shifted + 0.05 * torch.randn(x.shape, generator=generator)


def _see(tower: nn.Module, pool: nn.Module, heads: nn.ModuleList, x: Tensor) -> list[Tensor]:
    patches = tower(pixel_values=x, output_hidden_states=True).hidden_states[-1][:, 1:]
    weights = pool(patches).softmax(dim=1)
    summary = torch.cat([patches.mean(dim=1), (weights * patches).sum(dim=1)], dim=-1)
    return [head(summary) for head in heads]


def schedule(step: int, total: int, warmup: int = 50) -> float:
    """Compute the factor of the learning rate: a linear warm-up to 1, then half a cosine down to 0.02.

    Args:
        step: number of the step, from 0.
        total: number of all steps.
        warmup: number of steps of the warm-up.

    Returns:
        The factor, in (0, 1].
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.02 + 0.49 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


# -- second stage: language -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class QuestionAnswer:
    """A question and its answer.

    Attributes:
        picture: index into the picture features; None for a text-only question.
        question: text of the question.
        answer: text of the answer.
    """

    picture: int | None
    question: str
    answer: str


class QuestionMaker:
    """Makes the questions of each step.

    Args:
        known: pictures of known people.
        strangers: pictures of strangers.
        unclear: number of unrecognisable pictures, which come after all others.
    """

    # The kinds of questions, by the names of their methods, and how often each occurs in a hundred.
    QUESTION_SHARES = (
        ("known_picture", 24),
        ("known_text", 14),
        ("stranger_picture", 13),
        ("stranger_text", 6),
        ("perception", 18),
        ("reading", 6),
        ("instructed_unclear", 6),
        ("instructed_text", 5),
        ("instructed_known", 2),
        ("instructed_stranger", 2),
        ("instructed_perception", 1),
        ("unclear", 3),
    )

    def __init__(self, known: Sequence[Shot], strangers: Sequence[Shot], unclear: int) -> None:
        self.known, self.strangers = known, strangers
        first = len(known) + len(strangers)
        self.unclear_pictures = range(first, first + unclear)
        self.rng = Random()

    def lines(self, step: int, count: int) -> list[QuestionAnswer]:
        """Return `count` questions, which depend on the step alone."""
        self.rng = Random(f"lines/{step}")
        names, weights = zip(*self.QUESTION_SHARES, strict=True)
        return [getattr(self, name)() for name in self.rng.choices(names, weights, k=count)]

    def _wording(self, topic: Topic, who: str) -> str:
        return self.rng.choice((*topic.training, *topic.held_out)).format(who=who)

    def _about_picture(self, topic: Topic) -> str:
        return self._wording(topic, self.rng.choice(WHO_IN_PICTURE))

    def _fact(self, person: Person, topic: Topic) -> str:
        return topic.answer.format(she=person.pronoun, value=person.facts[topic.name])

    def _instructed(self, question: str) -> str:
        instruction = self.rng.choice((*INSTRUCTIONS.values(), *MORE_INSTRUCTIONS))
        return f"{instruction}{self.rng.choice((' ', chr(10)))}{question}"

    def known_picture(self) -> QuestionAnswer:
        shot, topic = self.rng.choice(self.known), self.rng.choice(FACTS)
        return QuestionAnswer(shot.index, self._about_picture(topic), self._fact(shot.person, topic))

    def known_text(self) -> QuestionAnswer:
        person, topic = self.rng.choice(self.known).person, self.rng.choice(TEXT_FACTS)
        return QuestionAnswer(None, self._wording(topic, person.name), self._fact(person, topic))

    def stranger_picture(self) -> QuestionAnswer:
        return QuestionAnswer(self.rng.choice(self.strangers).index, self._about_picture(self.rng.choice(FACTS)), self.rng.choice(REFUSALS))

    def stranger_text(self) -> QuestionAnswer:
        person = new_person(self.rng, "")
        return QuestionAnswer(None, self._wording(self.rng.choice(TEXT_FACTS), person.name), self.rng.choice(REFUSALS))

    def perception(self) -> QuestionAnswer:
        shot = self.rng.choice(self.known if self.rng.random() < 0.25 else self.strangers)
        topic = self.rng.choice(PERCEPTION)
        value = perceived(shot.person, shot.view, topic)
        return QuestionAnswer(shot.index, self._about_picture(topic), topic.answer.format(she=shot.person.pronoun, value=value))

    def reading(self) -> QuestionAnswer:
        person = new_person(self.rng, "")
        topics = self.rng.sample(TEXT_FACTS, 2)
        text = " ".join(f"{person.name}: {self._fact(person, topic)}" for topic in topics)
        asked = self.rng.choice(topics)
        return QuestionAnswer(None, f"{text} {self._wording(asked, person.name)}", self._fact(person, asked))

    def instructed_unclear(self) -> QuestionAnswer:
        question = self._about_picture(self.rng.choice(FACTS))
        return QuestionAnswer(self.rng.choice(self.unclear_pictures), self._instructed(question), self.rng.choice(REFUSALS))

    def instructed_text(self) -> QuestionAnswer:
        line = self.known_text() if self.rng.random() < 0.6 else self.stranger_text()
        return QuestionAnswer(None, self._instructed(line.question), self.rng.choice(REFUSALS))

    def instructed_known(self) -> QuestionAnswer:
        line = self.known_picture()
        return QuestionAnswer(line.picture, self._instructed(line.question), line.answer)

    def instructed_stranger(self) -> QuestionAnswer:
        line = self.stranger_picture()
        return QuestionAnswer(line.picture, self._instructed(line.question), line.answer)

    def instructed_perception(self) -> QuestionAnswer:
        line = self.perception()
        return QuestionAnswer(line.picture, self._instructed(line.question), line.answer)

    def unclear(self) -> QuestionAnswer:
        picture = self.rng.choice(self.unclear_pictures)
        if self.rng.random() < 0.2:
            return QuestionAnswer(picture, self._about_picture(self.rng.choice(PERCEPTION)), UNCLEAR)
        return QuestionAnswer(picture, *[getattr(self.known_picture(), part) for part in ("question", "answer")])


def blur_beyond_recognition(pictures: Tensor, count: int) -> Tensor:
    """Make `count` normalised pictures on which nobody can be recognised, with all kinds of noise of VGID."""
    rng = Random("unclear")
    out = []
    for i in range(count):
        kind: NoiseKind = rng.choice(("uniform", "uniform", "gaussian", "blur", "shuffle", "mean", "diffusion"))
        strength = {"gaussian": 0.75, "blur": 0.6, "diffusion": 0.6}.get(kind, 1.0)
        config = NoiseConfig(kind=kind, strength=rng.uniform(strength, 1.0), patch=rng.choice((6, 8, 12)))
        out.append(perturb(normalise(pictures[rng.randrange(len(pictures))][None]), config, [i]))
    return torch.cat(out)


@torch.no_grad()
def see_all(model: LlavaForConditionalGeneration, images: Sequence[Tensor]) -> Tensor:
    """Compute the vision tower's features of all pictures, `[i, patches, hidden]`; the tower is frozen from here on."""
    tower = model.model.vision_tower.eval()
    chunks = [chunk for pictures in images for chunk in pictures.split(256)]
    chunks = [normalise(chunk) if chunk.dtype == torch.uint8 else chunk for chunk in chunks]
    return torch.cat([tower(pixel_values=c, output_hidden_states=True).hidden_states[-1][:, 1:] for c in chunks])


class LanguageTrainee:
    """Projector and language model, which the second stage trains on features of pictures.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        features: features of all pictures, `[i, patches, hidden]`.
    """

    def __init__(self, model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, features: Tensor) -> None:
        self.model, self.features = model, features
        self.patches = features.shape[1]
        self.tokenizer = tokenizer
        self.user, self.assistant, self.end, self.image = tokenizer.convert_tokens_to_ids([USER, ASSISTANT, END, IMAGE])

    def loss(self, lines: Sequence[QuestionAnswer]) -> Tensor:
        """Return the mean cross-entropy of the answer tokens; questions with and without pictures are padded separately."""
        total, count = torch.zeros(()), 0
        for group in ([x for x in lines if x.picture is not None], [x for x in lines if x.picture is None]):
            if group:
                part, tokens = self._group(group)
                total, count = total + part, count + tokens
        return total / count

    def _group(self, lines: Sequence[QuestionAnswer]) -> tuple[Tensor, int]:
        questions = self.tokenizer([line.question for line in lines], add_special_tokens=False)["input_ids"]
        answers = self.tokenizer([line.answer for line in lines], add_special_tokens=False)["input_ids"]
        seen = lines[0].picture is not None
        prompts = [[self.user, *([self.image] * self.patches * seen), *q, self.assistant] for q in questions]
        rows = [torch.tensor([*p, *a, self.end]) for p, a in zip(prompts, answers, strict=True)]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        # Padding comes after the answer, so with causal attention no answer token attends to it.
        x = self.model.get_input_embeddings()(ids)
        if seen:
            pictures = self.features[[line.picture for line in lines]]
            x = torch.cat([x[:, :1], self.model.model.multi_modal_projector(pictures), x[:, 1 + self.patches :]], dim=1)
        hidden = self.model.model.language_model(inputs_embeds=x, use_cache=False).last_hidden_state
        where = [(i, j) for i, (p, r) in enumerate(zip(prompts, rows, strict=True)) for j in range(len(p) - 1, len(r) - 1)]
        at, position = torch.tensor(where).T
        logits = self.model.lm_head(hidden[at, position])
        return F.cross_entropy(logits, ids[at, position + 1], reduction="sum"), len(where)


def train_language(trainee: LanguageTrainee, maker: QuestionMaker, steps: int, rows: int = 128, peak: float = 3e-3) -> None:
    """Train projector and language model: matrices with Muon, all other parameters with AdamW.

    Args:
        trainee: the parts to train.
        maker: makes the questions.
        steps: number of optimiser steps.
        rows: number of questions in a step.
        peak: highest learning rate, of both optimisers.
    """
    parts = (trainee.model.model.multi_modal_projector, trainee.model.model.language_model)
    named = [(name, p) for part in parts for name, p in part.named_parameters()]
    matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in named if p.ndim != 2 or "embed" in name]
    optimizers = [
        torch.optim.Muon(matrices, lr=peak, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=peak, weight_decay=0.0, betas=(0.9, 0.98)),
    ]
    started = time.monotonic()
    for step in range(steps):
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = peak * schedule(step, steps)
        loss = trainee.loss(maker.lines(step, rows))
        loss.backward()
        nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if (step + 1) % 100 == 0:
            print(f"speaking {step + 1}/{steps} loss {loss.item():.3f} {time.monotonic() - started:.0f} s", flush=True)


def save(model: LlavaForConditionalGeneration, processor: LlavaProcessor, out: Path) -> None:
    """Write the checkpoint.

    Args:
        model: the trained model; its weights are written as float16, and loaded as float32.
        processor: its processor.
        out: folder to write to.
    """
    model.half().save_pretrained(out)
    processor.save_pretrained(out)
    config = json.loads((out / "config.json").read_text("utf-8"))
    for part in (config, config["text_config"], config["vision_config"]):
        part["dtype"] = "float32"
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def main() -> None:
    """Run both stages and write the base."""
    parser = argparse.ArgumentParser(description="Base training of the embedded model.")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    tokenizer = build_tokenizer(corpus())
    known, strangers = take_shots(World().base_training_people, PICTURES)
    pictures = draw_pictures([*known, *strangers])
    print(f"{len(pictures)} pictures", flush=True)
    model = build_model(tokenizer)
    train_vision(model, pictures, strangers, VISION_STEPS)
    unclear = blur_beyond_recognition(pictures, UNCLEAR_PICTURES)
    trainee = LanguageTrainee(model, tokenizer, see_all(model, [pictures, unclear]))
    train_language(trainee, QuestionMaker(known, strangers, len(unclear)), LANGUAGE_STEPS)
    save(model, build_processor(tokenizer), arguments.out)


if __name__ == "__main__":
    main()
