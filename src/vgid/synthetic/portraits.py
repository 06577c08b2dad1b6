"""Drawn portraits of fictional people.

A `Look` stays the same on all pictures of a person: head, skin, facial hair, hair colour. A `View` is one picture: expression, glasses,
clothes, background, pose. The style is "Open Peeps" by Pablo Stanley (CC0), drawn by DiceBear and rendered by resvg.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from random import Random
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from vgid.errors import ConfigError

Gender = Literal["female", "male"]

# What hair or headwear a head shows, in the words of a question's answer.
_HAIR = {
    "an afro": ("afro", "longAfro"),
    "a fringe": ("bangs", "bangs2", "mediumBangs", "mediumBangs2", "mediumBangs3", "longBangs"),
    "buns": ("bun", "bun2", "buns", "grayBun", "bantuKnots"),
    "braids": ("cornrows", "cornrows2"),
    "dreadlocks": ("dreads1", "dreads2", "twists", "twists2"),
    "a flat top": ("flatTop", "flatTopLong"),
    "medium hair": ("grayMedium", "medium1", "medium2", "medium3", "mediumStraight"),
    "short hair": ("grayShort", "pomp", "short1", "short2", "short3", "short4", "short5"),
    "a hat": ("hatBeanie", "hatHip"),
    "a headscarf": ("hijab",),
    "long hair": ("long", "longCurly"),
    "a mohawk": ("mohawk", "mohawk2"),
    "no hair": ("noHair1", "noHair2", "noHair3"),
    "shaved sides": ("shaved1", "shaved2", "shaved3"),
    "a turban": ("turban",),
}
HAIR_OF = {head: hair for hair, heads in _HAIR.items() for head in heads}
_EITHER = ("afro", "bantuKnots", "cornrows", "dreads1", "dreads2", "hatBeanie", "mohawk", "mohawk2", "twists")
_FEMALE = (
    *("bangs", "bangs2", "bun", "bun2", "buns", "cornrows2", "grayBun", "grayMedium", "hijab", "long", "longAfro"),
    *("longBangs", "longCurly", "medium1", "medium2", "medium3", "mediumBangs", "mediumBangs2", "mediumBangs3"),
    "mediumStraight",
)
HEADS: dict[Gender, tuple[str, ...]] = {
    "female": (*_FEMALE, *_EITHER),
    "male": (*(head for head in HAIR_OF if head not in _FEMALE and head not in _EITHER), *_EITHER),
}
# Heads and beards that show the hair colour; on all others, two people could differ in it without looking different.
_COLOURED = frozenset(
    (
        "bangs",
        "cornrows",
        "grayBun",
        "grayMedium",
        "grayShort",
        "mediumBangs2",
        "mohawk",
        "mohawk2",
        "noHair3",
        "short4",
        "full4",
        "moustache9",
    )
)
SKINS = ("#ffdbb4", "#edb98a", "#d08b5b", "#ae5d29", "#694d3d")
HAIR_COLOURS = ("#2c1b18", "#e8e1e1", "#d6b370", "#f59797", "#a55728", "#c93305")
BEARDS = ("chin", "full", "full2", "full3", "full4", "goatee1", "goatee2")
MOUSTACHES = tuple(f"moustache{i}" for i in (2, 3, 5, 6, 7, 8, 9))  # 1 and 4 cannot be seen at 96 pixels (docs/LOG.md)

# Answers to questions about a picture that need no knowledge of the person, with what is drawn for each.
EXPRESSIONS = {
    "happy": ("smile", "smileBig", "smileTeethGap", "smileLOL", "eatingHappy"),
    "angry": ("veryAngry", "rage", "angryWithFang", "driven"),
    "sad": ("solemn", "tired", "concernedFear"),
    "surprised": ("awe", "fear", "hectic"),
    "in love": ("lovingGrin1", "lovingGrin2"),
    "calm": ("calm", "serious", "eyesClosed", "blank"),
}
GLASSES = {
    "glasses": ("glasses", "glasses2", "glasses3", "glasses4", "glasses5"),
    "sunglasses": ("sunglasses", "sunglasses2"),
}
CLOTHES = {
    "blue": "#8fa7df",
    "green": "#78e185",
    "orange": "#ffb35c",
    "pink": "#e279c7",
    "red": "#d9534f",
    "yellow": "#fdea6b",
    "white": "#f7f7f7",
}
BACKGROUNDS = {
    "blue": "#5b8def",
    "green": "#57b36a",
    "yellow": "#f7dc5e",
    "pink": "#f5a3c7",
    "orange": "#f39b4a",
    "purple": "#9a6fd0",
    "white": "#ffffff",
    "grey": "#9aa0a6",
}


@dataclass(frozen=True, slots=True)
class Look:
    """What stays the same on every picture of a person."""

    gender: Gender
    head: str
    skin: str
    facial_hair: str | None
    hair_colour: str

    @property
    def hair(self) -> str:
        """The hair or headwear in words, such as "an afro"."""
        return HAIR_OF[self.head]

    @property
    def beard(self) -> str:
        """The facial hair in words: "a beard", "a moustache" or "no beard"."""
        if self.facial_hair is None:
            return "no beard"
        return "a beard" if self.facial_hair in BEARDS else "a moustache"


@dataclass(frozen=True, slots=True)
class View:
    """What changes from picture to picture."""

    expression: str
    glasses: str | None
    clothes: str
    background: str
    rotate: int
    scale: float
    shift: tuple[int, int]
    mirrored: bool

    @property
    def mood(self) -> str:
        """The expression in words, such as "happy"."""
        return next(mood for mood, names in EXPRESSIONS.items() if self.expression in names)

    @property
    def eyewear(self) -> str:
        """The eyewear in words: "glasses", "sunglasses" or "no glasses"."""
        return next((kind for kind, names in GLASSES.items() if self.glasses in names), "no glasses")


def random_look(rng: Random, gender: Gender) -> Look:
    """Draw a look; half of the men have facial hair."""
    head = rng.choice(HEADS[gender])
    skin = rng.choice(SKINS)
    facial_hair = None
    if gender == "male" and rng.random() < 0.5:
        facial_hair = rng.choice(BEARDS if rng.random() < 0.5 else MOUSTACHES)
    coloured = head in _COLOURED or facial_hair in _COLOURED
    return Look(gender, head, skin, facial_hair, rng.choice(HAIR_COLOURS) if coloured else HAIR_COLOURS[0])


def random_view(rng: Random) -> View:
    """Draw a view of any person."""
    eyewear = rng.choices(("none", "glasses", "sunglasses"), (3, 2, 1))[0]
    return View(
        expression=rng.choice(EXPRESSIONS[rng.choice(tuple(EXPRESSIONS))]),
        glasses=None if eyewear == "none" else rng.choice(GLASSES[eyewear]),
        clothes=rng.choice(tuple(CLOTHES)),
        background=rng.choice(tuple(BACKGROUNDS)),
        rotate=rng.randint(-8, 8),
        # From 1.05 on, the lower edge of the torso stays outside the picture even when it is rotated.
        scale=rng.choice((1.05, 1.1, 1.15, 1.2)),
        shift=(rng.randint(-3, 3), rng.randint(-1, 3)),
        mirrored=rng.random() < 0.5,
    )


NEUTRAL_VIEW = View("calm", None, "white", "grey", 0, 1.1, (0, 0), False)


class _Tools(NamedTuple):
    """What draws: DiceBear's `Avatar` class, the style it draws in, and the `resvg_py` module."""

    avatar: Any
    style: Any
    resvg: Any


@cache
def _tools() -> _Tools:
    # Imported here: only the demo's fictional people need these packages.
    try:
        import resvg_py
        from dicebear import Avatar, Style

        definition = files("dicebear_styles").joinpath("open-peeps.json").read_text("utf-8")
    except ImportError as error:
        raise ConfigError(
            "drawing fictional people needs packages that are not installed",
            expected="dicebear-core, dicebear-styles and resvg-py",
            got=str(error),
            fix='pip install "vgid[demo]"',
        ) from error
    return _Tools(Avatar, Style(json.loads(definition)), resvg_py)


def render_png(look: Look, view: View, size: int = 224) -> bytes:
    """Draw one picture of a person.

    Args:
        look: what the person looks like.
        view: how this picture shows the person.
        size: width and height in pixels.

    Returns:
        The picture as PNG bytes.

    Raises:
        ConfigError: the packages of the extra `demo` are not installed.
    """
    options: dict[str, object] = {
        "seed": "vgid",
        "headVariant": [look.head],
        "skinColor": [look.skin],
        "headContrastColor": [look.hair_colour],
        "facialHairProbability": 0 if look.facial_hair is None else 100,
        "expressionVariant": [view.expression],
        "accessoriesProbability": 0 if view.glasses is None else 100,
        "maskProbability": 0,
        "clothingColor": [CLOTHES[view.clothes]],
        "backgroundColor": [BACKGROUNDS[view.background]],
        "rotate": view.rotate,
        "scale": view.scale,
        "translateX": view.shift[0],
        "translateY": view.shift[1],
        "flip": "horizontal" if view.mirrored else "none",
    }
    if look.facial_hair is not None:
        options["facialHairVariant"] = [look.facial_hair]
    if view.glasses is not None:
        options["accessoriesVariant"] = [view.glasses]
    tools = _tools()
    svg = tools.avatar(tools.style, options).to_string()
    png: bytes = tools.resvg.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
    return png


def render_portrait(look: Look, view: View, size: int = 224) -> Image.Image:
    """Draw one picture of a person as an RGB image.

    Args:
        look: what the person looks like.
        view: how this picture shows the person.
        size: width and height in pixels.

    Returns:
        The picture.

    Raises:
        ConfigError: the packages of the extra `demo` are not installed.
    """
    return Image.open(io.BytesIO(render_png(look, view, size))).convert("RGB")


@lru_cache(maxsize=4096)
def appearance(look: Look) -> npt.NDArray[np.float32]:
    """Draw a look's neutral portrait, `[32, 32, 3]` with values in [0, 1], to compare the looks of people."""
    return np.asarray(render_portrait(look, NEUTRAL_VIEW, 32), dtype=np.float32) / 255.0


def difference(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """Compute the mean absolute difference of two appearances: 0 for the same picture, 1 for black against white."""
    return float(np.abs(one - other).mean())
