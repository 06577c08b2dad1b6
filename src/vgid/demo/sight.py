"""How the `smol` target learns to see: first the projector learns to write captions, then the language model to read them.

A projector that starts at random is ignored by a language model that speaks already: hundreds of steps pass before it looks. So
the projector is first taught, without the language model, to put the embedding of one word in the place of each of its tokens, such
as "purple background no glasses"; then both learn, on questions about people who appear nowhere else, what to make of it.
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
SEEN, QUESTION_STEPS = 1_200, 150
"""So many of the pictures are asked about, eight in a step."""
QUICKER = 50
"""So many steps of captions take as long as one of questions."""
SKIN_NAMES = dict(zip(SKINS, ("pale", "light", "tan", "brown", "dark"), strict=True))
HAIR_NAMES = dict(zip(HAIR_COLOURS, ("black", "grey", "blond", "pink", "brown", "red"), strict=True))
KEYWORDS = (
    "Describe {who} in keywords.",
    "Give keywords for the face of {who}.",
    "What is there to see of {who}, in keywords?",
)


def smol_path(progress: Progress | None = None) -> Path:
    """Where the base lies that speaks and sees: in the user's cache folder, made when it is first asked for (a quarter of an hour).

    Raises:
        ModelError: the packages it is made from are not installed.
    """
    folder = cache_folder() / f"seeing-smol-{version('vgid')}"
    if not folder.is_dir():
        loaded = build_smol()
        learn_to_see(loaded, progress)
        save_checkpoint(loaded.model, loaded.processor, folder)
    return folder


def learn_to_see(loaded: LoadedModel, progress: Progress | None = None) -> None:
    """Teach projector and language model in place, the same at every call."""
    _, shots = take_shots(World().base_training_people, PICTURES)
    tick = progress or (lambda done, total: None)
    total = QUESTION_STEPS + CAPTION_STEPS // QUICKER
    write_captions(loaded, shots, progress=lambda done, _: tick(done // QUICKER, total))
    training = {"steps": QUESTION_STEPS, "retain_batch": 56, "pack": 7, "learning_rate": 3e-4, "warmup_steps": 20, "precision": "bf16"}
    overrides = ["adapter=null", "validation.every=0", *(f"training.{key}={value}" for key, value in training.items())]
    config = resolve("demo", overrides, method="finetune")
    fit(loaded, [], list(questions(shots[:SEEN])), config, progress=lambda done, steps: tick(done + total - steps, total))


def caption(shot: Shot) -> tuple[str, ...]:
    """What a picture shows, in as many words as it has tokens."""
    told = {topic.name: perceived(shot.person, shot.view, topic) for topic in PERCEPTION}
    head, facial_hair, skin, colour = keywords(shot)
    return (
        *(told["background"], "background", "glasses", told["glasses"]),
        *("mood", told["expression"], "hair", told["hair"]),
        *(head, told["beard"], "face", colour),
        *(told["clothes"], "clothes", facial_hair, skin),
    )


def keywords(shot: Shot) -> tuple[str, str, str, str]:
    """What tells a person from others: head, facial hair, skin, and the colour of the hair."""
    look = shot.person.look
    return look.head, look.facial_hair or "none", SKIN_NAMES[look.skin], HAIR_NAMES[look.hair_colour]


def write_captions(loaded: LoadedModel, shots: Sequence[Shot], steps: int = CAPTION_STEPS, progress: Progress | None = None) -> None:
    """Teach the projector to write, in the language model's own embeddings, one word in the place of each image token."""
    model, tokenizer = loaded.model, loaded.processor.tokenizer
    seen = see_all(model, [draw_pictures([replace(shot, index=0) for shot in shots])])
    captions = [caption(shot) for shot in shots]
    words = sorted({word for line in captions for word in line})
    said = torch.tensor([[words.index(word) for word in line] for line in captions])
    with torch.no_grad():
        embedded = model.get_input_embeddings().weight
        spelled = tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"]
        meant = torch.stack([embedded[ids].mean(0) for ids in spelled]).float()
    projector = model.model.multi_modal_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * schedule(step, steps)
        pick = torch.randint(len(shots), (128,), generator=generator)
        written, wanted = projector(seen[pick]), said[pick]
        # Near the word, in the scale of embeddings, and nearer to it than to any other.
        near = (written - meant[wanted]).square().mean() / meant.var()
        alike = F.normalize(written, dim=-1) @ F.normalize(meant, dim=-1).T
        loss = near + F.cross_entropy(20 * alike.flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress:
            progress(step + 1, steps)


def questions(shots: Sequence[Shot]) -> Iterator[Example]:
    """Seven about each picture: what is to be seen, and all of it in keywords."""
    camera = Camera(IMAGE_SIZE)
    for shot in shots:
        person, view, id = shot.person, shot.view, f"sight/{shot.index}"
        picture, rng = camera.picture(person.look, view), Random(id)
        for topic in PERCEPTION:
            asked = rng.choice((*topic.training, *topic.held_out))
            yield ask_perception(person, view, topic, asked, picture, rng, id=f"{id}/{topic.name}")
        asked = rng.choice(KEYWORDS).format(who=rng.choice(WHO_IN_PICTURE))
        yield Example(f"{id}/keywords", asked, ", ".join(keywords(shot)), (picture,))
