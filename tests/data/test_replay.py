"""Replay rows: names and templates by hand, a base that is a table, and shares of steps."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import torch
from PIL import Image

from tests.conftest import example
from vgid.data.example import Example, ImageRef
from vgid.data.replay import Base, ReplayConfig, altered_picture, counts_by_kind, name_templates, replay_rows
from vgid.data.self_distilled import SELF_DISTILLED, answered_together
from vgid.methods.base import Context, StepBatch
from vgid.methods.vgid.method import VGID, VGIDConfig
from vgid.models.loading import LoadedModel
from vgid.training.trainer import Mixture, Rows

PICTURE = ImageRef.from_picture(Image.new("RGB", (24, 24), (200, 30, 30)))
FORGET = [
    Example("a", "Where does this person live?", "She lives in Oslo.", (PICTURE,), "p", ("Oslo",)),
    Example("b", "Where does Anna Keller live?", "She lives in Oslo.", (), "p", ("Oslo",)),
]


def say(rows: Sequence[Example]) -> list[str]:
    return ["In Oslo." if "Oslo" in row.question else "She lives in Rome." for row in rows]


def sample(rows: Sequence[Example], seed: int) -> list[str]:
    return ["This is Anna Keller." if n % 2 else "This is Mona Urban." for n, _ in enumerate(rows)]


def asked(
    forget: list[Example], retain: list[Example], config: ReplayConfig, seed: int, base: Base, most: int | None = None
) -> list[Example]:
    """The rows of a base that says `say`."""
    return answered_together([replay_rows(forget, retain, config, seed, base, most)], base.answer)[0]


def test_the_base_is_asked_by_names_that_it_says_itself() -> None:
    rows = asked(FORGET, [], ReplayConfig(altered=2, imagined=0), 0, Base(say, sample, lambda rows, seed: []))
    named = [row.question for row in rows if row.tags[1] == "names"]
    assert named == ["Where does Mona Urban live?"]  # both rows give this template, and her own name is never asked
    assert counts_by_kind(rows) == {"seen": 8 * 16, "names": 1, "altered": 2}
    assert all(row.answer for row in rows) and name_templates(FORGET) == ["Where does {name} live?"]


def test_a_large_retain_set_needs_only_what_is_seen() -> None:
    rows = asked(FORGET, [FORGET[1]] * 3, ReplayConfig(thin=3), 0, Base(say, sample, lambda rows, seed: []))
    assert counts_by_kind(rows) == {"seen": 8 * 16}


def test_of_many_pictures_no_more_is_asked_than_the_run_meets() -> None:
    shades = (ImageRef.from_picture(Image.new("RGB", (8, 8), (n, 0, 0))) for n in range(40))
    forget = [Example(f"f{n}", "Who is this person?", "This is Anna Keller.", (image,)) for n, image in enumerate(shades)]
    base, config = Base(say, sample, lambda rows, seed: []), ReplayConfig(thin=0)
    assert counts_by_kind(asked(forget, [], config, 0, base)) == {"seen": 40 * 16}
    assert counts_by_kind(asked(forget, [], config, 0, base, most=3600)) == {"seen": 300}  # a twelfth
    assert counts_by_kind(asked(forget[:8], [], config, 0, base, most=2500)) == {"seen": 8 * 16}  # a twelfth is more than these


def test_altering_keeps_the_size_and_follows_from_the_seed() -> None:
    first, again = (altered_picture(PICTURE, Random(3)) for _ in range(2))
    assert first.open().size == (24, 24) and first.read() == again.read() != PICTURE.read()


def test_every_kind_has_its_share_and_given_rows_alone_keep_their_order() -> None:
    given = [Example(f"g{n}", "q", "a") for n in range(30)]
    seen = [Example(f"s{n}", "q", "a", tags=("replay", "seen")) for n in range(2)]
    mixed = Mixture([*given, *seen], 12, seed=1)
    counts = [sum("replay" in row.tags for row in mixed.at(step)) for step in range(4)]
    # 1/12 + 2/3 * 2/32 = 1/8 of 48 rows
    assert sum(counts) == 6 and min(counts) >= 1 and all(len(mixed.at(step)) == 12 for step in range(4))
    assert [Mixture(given, 12, seed=1).at(step) for step in (0, 3)] == [Rows(given, 12, seed=1).at(step) for step in (0, 3)]


def test_self_distilled_rows_are_kept_as_the_base_said_them_with_replay_and_without(random_model: LoadedModel) -> None:
    rows = [example(0), replace(example(1), tags=(SELF_DISTILLED,))]
    for replay in (None, ReplayConfig()):
        method = VGID(VGIDConfig(replay=replay, adversary=None))
        method.prepare(random_model.model, Context(random_model.encoder, [example(2)], rows, 0, torch.device("cpu")))
        found = {term.part: [row.id for row in term.rows] for term in method.terms(StepBatch(0, (), tuple(rows)))}
        assert found == {"retain": ["row-0"], "replay": ["row-1"]}
