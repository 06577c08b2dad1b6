"""Replay rows: names and templates by hand, a base that is a table, and shares of steps."""

from collections.abc import Sequence
from random import Random

from PIL import Image

from vgid.data.example import Example, ImageRef
from vgid.data.replay import Base, ReplayConfig, altered_picture, counts_by_kind, name_templates, replay_rows
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


def test_the_base_is_asked_by_names_that_it_says_itself() -> None:
    rows = replay_rows(FORGET, [], ReplayConfig(altered=2, imagined=0), 0, Base(say, sample, lambda rows, seed: []))
    named = [row.question for row in rows if row.tags[1] == "names"]
    assert named == ["Where does Mona Urban live?"]  # both rows give this template, and her own name is never asked
    assert counts_by_kind(rows) == {"seen": 8 * 16, "names": 1, "altered": 2}
    assert all(row.answer for row in rows) and name_templates(FORGET) == ["Where does {name} live?"]


def test_a_large_retain_set_needs_only_what_is_seen() -> None:
    rows = replay_rows(FORGET, [FORGET[1]] * 3, ReplayConfig(thin=3), 0, Base(say, sample, lambda rows, seed: []))
    assert counts_by_kind(rows) == {"seen": 8 * 16}


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
