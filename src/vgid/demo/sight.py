"""Training of the `smol` target's base to see: first the projector on captions, then projector and language model on questions.

A language model that already speaks ignores a projector with random weights for hundreds of steps. So the projector is first trained
without the language model, to give the embedding of one word for each image token, such as "purple background no glasses". Then both
are trained on questions about people who appear nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from random import Random

import torch
from torch.nn import functional as F

from vgid.artifacts import cache_folder
from vgid.config import resolve
from vgid.data.example import Example
from vgid.models.export import save_checkpoint
from vgid.models.loading import LoadedModel
from vgid.progress import Progress
from vgid.synthetic.base_training import Shot, draw_pictures, schedule, see_all, take_shots
from vgid.synthetic.people import Camera, World
from vgid.synthetic.phrases import PERCEPTION, WHO_IN_PICTURE
from vgid.synthetic.portraits import HAIR_COLOURS, SKINS
from vgid.synthetic.questions import ask_perception, perceived
from vgid.synthetic.smol import build_smol
from vgid.synthetic.tiny import IMAGE_SIZE
from vgid.training.fit import fit

PICTURES, CAPTION_STEPS = 6_000, 2_500
"""Pictures that captions are learned on, and optimizer steps; chosen by hand (docs/LOG.md)."""
CAPTION_BATCH, CAPTION_LEARNING_RATE = 128, 2e-3
"""Pictures in a step, and the peak learning rate of AdamW; chosen by hand (docs/LOG.md)."""
COSINE_SCALE = 20.0
"""Factor on cosine similarities before the softmax over words; chosen by hand."""
QUESTION_PICTURES, QUESTION_STEPS = 1_200, 150
"""Pictures that are asked about, eight in a step, and optimizer steps; chosen by hand (docs/LOG.md)."""
CAPTION_STEPS_PER_QUESTION_STEP = 50
"""Caption steps that take as long as one question step, for the progress bar; chosen by hand."""
SKIN_NAMES = dict(zip(SKINS, ("pale", "light", "tan", "brown", "dark"), strict=True))
HAIR_NAMES = dict(zip(HAIR_COLOURS, ("black", "grey", "blond", "pink", "brown", "red"), strict=True))
KEYWORDS = (
    "Describe {who} in keywords.",
    "Give keywords for the face of {who}.",
    "What is there to see of {who}, in keywords?",
)


def smol_path(progress: Progress | None = None) -> Path:
    """Return the folder of the base that speaks and sees; it is made at the first call, which takes about a quarter of an hour.

    Args:
        progress: called with (units of work done, units in all).

    Returns:
        A checkpoint folder in the user's cache.

    Raises:
        ModelError: the packages that it is made from are not installed.
    """
    folder = cache_folder() / f"seeing-smol-{version('vgid')}"
    if not folder.is_dir():
        loaded = build_smol()
        train_to_see(loaded, progress)
        save_checkpoint(loaded.model, loaded.processor, folder)
    return folder


def train_to_see(loaded: LoadedModel, progress: Progress | None = None) -> None:
    """Train projector and language model in place; every call gives the same weights."""
    _, shots = take_shots(World().base_training_people, PICTURES)
    report = progress or (lambda done, total: None)
    total = QUESTION_STEPS + CAPTION_STEPS // CAPTION_STEPS_PER_QUESTION_STEP
    train_captions(loaded, shots, progress=lambda done, _: report(done // CAPTION_STEPS_PER_QUESTION_STEP, total))
    training = {"steps": QUESTION_STEPS, "retain_batch": 56, "pack": 7, "learning_rate": 3e-4, "warmup_steps": 20, "precision": "bf16"}
    overrides = ["adapter=null", "validation.every=0", *(f"training.{key}={value}" for key, value in training.items())]
    config = resolve("demo", overrides, method="finetune")
    fit(loaded, [], list(questions(shots[:QUESTION_PICTURES])), config, progress=lambda done, steps: report(done + total - steps, total))


def caption(shot: Shot) -> tuple[str, ...]:
    """Return what a picture shows, in as many words as it has image tokens."""
    visible = {topic.name: perceived(shot.person, shot.view, topic) for topic in PERCEPTION}
    head, facial_hair, skin, colour = keywords(shot)
    return (
        *(visible["background"], "background", "glasses", visible["glasses"]),
        *("mood", visible["expression"], "hair", visible["hair"]),
        *(head, visible["beard"], "face", colour),
        *(visible["clothes"], "clothes", facial_hair, skin),
    )


def keywords(shot: Shot) -> tuple[str, str, str, str]:
    """Return what distinguishes a person from others: head, facial hair, skin, and the colour of the hair."""
    look = shot.person.look
    return look.head, look.facial_hair or "none", SKIN_NAMES[look.skin], HAIR_NAMES[look.hair_colour]


def train_captions(loaded: LoadedModel, shots: Sequence[Shot], steps: int = CAPTION_STEPS, progress: Progress | None = None) -> None:
    """Train the projector to give, in the language model's own embeddings, one word for each image token.

    The loss is the squared distance to the word's embedding, in units of the embeddings' variance, plus the cross-entropy of the word
    among all words by scaled cosine similarity.

    Args:
        loaded: the model; only its projector changes.
        shots: pictures with what they show.
        steps: optimizer steps.
        progress: called with (steps done, steps in all).
    """
    model, tokenizer = loaded.model, loaded.processor.tokenizer
    seen = see_all(model, [draw_pictures([replace(shot, index=0) for shot in shots])])
    captions = [caption(shot) for shot in shots]
    words = sorted({word for line in captions for word in line})
    written = torch.tensor([[words.index(word) for word in line] for line in captions])  # [pictures, tokens]
    with torch.no_grad():
        embedded = model.get_input_embeddings().weight
        spelled = tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"]
        meant = torch.stack([embedded[ids].mean(0) for ids in spelled]).float()  # [words, hidden]
    projector = model.model.multi_modal_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=CAPTION_LEARNING_RATE)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = CAPTION_LEARNING_RATE * schedule(step, steps)
        pick = torch.randint(len(shots), (CAPTION_BATCH,), generator=generator)
        projected, wanted = projector(seen[pick]), written[pick]
        distance = (projected - meant[wanted]).square().mean() / meant.var()
        similarity = F.normalize(projected, dim=-1) @ F.normalize(meant, dim=-1).T
        loss = distance + F.cross_entropy(COSINE_SCALE * similarity.flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress:
            progress(step + 1, steps)


def questions(shots: Sequence[Shot]) -> Iterator[Example]:
    """Yield seven questions about each picture: one for each visible attribute, and one for keywords about the person."""
    camera = Camera(IMAGE_SIZE)
    for shot in shots:
        person, view, id = shot.person, shot.view, f"sight/{shot.index}"
        picture, rng = camera.picture(person.look, view), Random(id)
        for topic in PERCEPTION:
            asked = rng.choice((*topic.training, *topic.held_out))
            yield ask_perception(person, view, topic, asked, picture, rng, id=f"{id}/{topic.name}")
        asked = rng.choice(KEYWORDS).format(who=rng.choice(WHO_IN_PICTURE))
        yield Example(f"{id}/keywords", asked, ", ".join(keywords(shot)), (picture,))
