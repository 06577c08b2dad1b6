"""Replay rows: names and templates by hand, a base that is a table, and shares of steps."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import torch
from PIL import Image

from tests.conftest import example
from vgid.data.example import Derived, Example, ImageRef
from vgid.data.neutral import NEUTRAL, revealing_words
from vgid.data.replay import (
    Base,
    ReplayConfig,
    altered_picture,
    by_knowledge,
    counts_by_kind,
    name_templates,
    replay_rows,
    without_revealing,
)
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


def refuses(text: str) -> bool:
    return text.startswith("I cannot")


def sample(rows: Sequence[Example], seed: int) -> list[str]:
    return ["This is Anna Keller." if n % 2 else "This is Mona Urban." for n, _ in enumerate(rows)]


ASKED = Base(say, sample, lambda rows, seed: [], refuses)


def replayed(
    forget: Sequence[Example], retain: Sequence[Example], config: ReplayConfig, seed: int, base: Base, most: int | None = None
) -> list[Example]:
    """The rows that are kept of what the base answers."""
    return answered_together([replay_rows(forget, retain, config, seed, base, most)], base.answer)[0]


def test_the_base_is_asked_by_names_that_it_says_itself() -> None:
    rows = replayed(FORGET, [], ReplayConfig(altered=2, imagined=0), 0, ASKED)
    named = [row.question for row in rows if row.tags[1] == "names"]
    assert named == ["Where does Mona Urban live?"]  # both rows give this template, and her own name is never asked
    assert counts_by_kind(rows) == {"seen": 8 * 16, "names": 1, "altered": 2}
    assert all(row.answer for row in rows) and name_templates(FORGET) == ["Where does {name} live?"]


def test_a_word_that_the_base_says_of_many_others_reveals_nothing() -> None:
    """Street is said of four others and of her, Elm and Anna of two; Oslo is a whole fact; an altered picture may show anybody."""
    forget = [
        Example("a", "Where does Anna Keller live?", "At 12 Elm Street.", (), "p", ("Elm Street",)),
        Example("b", "Who is this?", "This is Anna Keller.", (), "p", ("Anna Keller",)),
        Example("c", "Where was she born?", "In Oslo.", (), "p", ("Oslo",)),
    ]
    said = {
        "names": ("At 3 Oak Street.", "At 4 Ash Street.", "In Oslo.", "Anna Berg.", "At 1 Elm Street."),
        "crossed": ("At 5 Fir Street.", "At 8 Elm Lane.", "In Oslo.", "Anna Lund."),
        "altered": ("At 7 Elm Lane.", "At 7 Fir Street.", "In Oslo.", "Anna Holm."),
    }
    rows = [
        Example(f"{kind}-{n}", "?", text, (), f"{kind}-{n}", (), ("replay", kind)) for kind in said for n, text in enumerate(said[kind])
    ]
    kept = [row.answer for row in without_revealing(rows, forget, revealing_words(forget))]
    assert kept == ["At 3 Oak Street.", "At 4 Ash Street.", "At 5 Fir Street."]


def test_a_large_retain_set_needs_only_what_is_seen() -> None:
    rows = replayed(FORGET, [FORGET[1]] * 3, ReplayConfig(thin=3), 0, ASKED)
    assert counts_by_kind(rows) == {"seen": 8 * 16}


def test_what_the_model_said_itself_makes_no_retain_set_rich_and_is_kept_as_it_said_it() -> None:
    neutral = [replace(FORGET[1], id=f"n{n}", tags=(NEUTRAL,)) for n in range(3)]
    derived = [replace(FORGET[0], id="d", derived=Derived("a", "seen"))]
    rows = replayed(FORGET, [*neutral, *derived], ReplayConfig(thin=3, altered=2, imagined=0), 0, ASKED)
    assert counts_by_kind(rows) == {"seen": 8 * 16, "names": 1, "altered": 2}  # nothing is asked about the picture of the row `derived`
    assert counts_by_kind([*neutral, *derived, *FORGET]) == {"": 2, "seen": 1, "neutral": 3}


def test_names_about_whom_the_base_refuses_are_told_apart() -> None:
    base = replace(ASKED, answer=lambda rows: ["I cannot say." if "Mona" in row.question else "In Rome." for row in rows])
    found = by_knowledge(["Mona Urban", "Jan Novak"], ["Where does {name} live?", "Who is {name}?"], base, Random(0))
    assert found == (["Jan Novak"], ["Mona Urban"])
    assert by_knowledge(["Mona Urban"], [], base, Random(0)) == (["Mona Urban"], [])


def test_people_come_first_of_whom_the_base_says_the_same_each_time() -> None:
    """Of Jan it says "In Rome." always, of Mona half the time, of Ute never again."""

    def draw(rows: Sequence[Example], seed: int) -> list[str]:
        return ["In Rome." if "Jan" in row.question or ("Mona" in row.question and n % 2) else "In Oslo." for n, row in enumerate(rows)]

    base = replace(ASKED, answer=lambda rows: ["In Rome."] * len(rows), sample=draw)
    found = by_knowledge(["Ute Alber", "Mona Urban", "Jan Novak"], ["Where does {name} live?"], base, Random(0))
    assert found == (["Jan Novak", "Mona Urban", "Ute Alber"], [])


def test_altered_pictures_show_different_people() -> None:
    seen: list[str] = []

    def answer(rows: Sequence[Example]) -> list[str]:
        if rows[0].id.startswith("who-"):  # of the twelve pictures one shows Mona, one her who is forgotten, and all others Jan
            return ["This is Mona." if n == 5 else "She lives in Oslo." if n == 6 else "This is Jan." for n, _ in enumerate(rows)]
        seen.extend(row.images[0].fingerprint for row in rows if row.tags[1] == "altered" and row.id.endswith("-0"))
        return ["In Rome."] * len(rows)

    config = ReplayConfig(seen=0, names=0, imagined=0, altered=4)
    replayed(FORGET, [], config, 0, replace(ASKED, answer=answer))
    assert len(set(seen)) == 4


def test_each_question_about_a_changed_picture_has_a_view_of_its_own() -> None:
    forget = [Example(f"f{n}", f"Where does this person go on day {n}?", "To Oslo.", (PICTURE,), "p", ("Oslo",)) for n in range(6)]
    rows = replayed(forget, [], ReplayConfig(seen=0, names=0, imagined=0, altered=1), 0, ASKED)
    shown = [row.images[0].fingerprint for row in rows]
    assert len(rows) == 6 and len({*shown[::2]}) == 1 and len({*shown}) == 1 + 3


def test_of_each_kind_a_twentieth_may_be_refusals() -> None:
    def answer(rows: Sequence[Example]) -> list[str]:
        return ["I cannot say." if n % 2 else "In Rome." for n, _ in enumerate(rows)]

    rows = replayed(FORGET, [], ReplayConfig(altered=0, names=0), 0, replace(ASKED, answer=answer))
    assert len(rows) == 64 + 3 and sum(refuses(row.answer) for row in rows) == 3
    silent = replace(ASKED, answer=lambda rows: ["I cannot say."] * len(rows))
    assert len(replayed(FORGET, [], ReplayConfig(altered=0, names=0), 0, silent)) == 128  # where it says nothing else, all of them


def test_people_whom_the_base_knows_are_imagined_with_what_it_says_of_them() -> None:
    wanted: list[list[tuple[str, str]]] = []

    def imagine(groups: Sequence[Sequence[Example]], seed: int) -> list[ImageRef]:
        wanted.extend([(row.question, row.answer) for row in rows] for rows in groups)
        return []

    people = replace(ASKED, sample=lambda rows, seed: [f"This is {'Mona Urban' if n % 2 else 'Jan Novak'}." for n, _ in enumerate(rows)])
    base = replace(people, answer=lambda rows: ["I cannot say." if "Mona" in r.question else "In Rome." for r in rows], imagine=imagine)
    replayed(FORGET, [], ReplayConfig(altered=2, imagined=4), 0, base)
    assert wanted == [[("Who is this person?", "This is Jan Novak."), ("Where does this person live?", "In Rome.")]]


def test_of_several_people_each_name_is_imagined_from_the_pictures_of_up_to_three() -> None:
    """Four people to forget, on pictures of one colour each, and one name: its pictures start from those of three of them."""
    colours: list[tuple[int, ...]] = []

    def imagine(groups: Sequence[Sequence[Example]], seed: int) -> list[ImageRef]:
        colours.extend(rows[0].images[0].open().convert("RGB").resize((1, 1)).getpixel((0, 0)) for rows in groups)
        return []

    shown = [ImageRef.from_picture(Image.new("RGB", (24, 24), colour)) for colour in ("red", "lime", "blue", "white")]
    forget = [replace(FORGET[0], id=f"f{n}", images=(image,), subject=f"p{n}") for n, image in enumerate(shown)]
    base = replace(ASKED, sample=lambda rows, seed: ["This is Jan Novak."] * len(rows), imagine=imagine)
    replayed(forget, [], ReplayConfig(altered=2, imagined=4), 0, base)
    assert len(colours) == 3
    assert [max(range(3), key=lambda band: colour[band]) for colour in colours] == [0, 1, 2]  # red, green, blue


def test_of_many_pictures_no_more_is_asked_than_the_run_meets() -> None:
    shades = (ImageRef.from_picture(Image.new("RGB", (8, 8), (n, 0, 0))) for n in range(40))
    forget = [Example(f"f{n}", "Who is this person?", "This is Anna Keller.", (image,)) for n, image in enumerate(shades)]
    base, config = ASKED, ReplayConfig(thin=0)
    assert counts_by_kind(replayed(forget, [], config, 0, base)) == {"seen": 40 * 16}
    assert counts_by_kind(replayed(forget, [], config, 0, base, most=3600)) == {"seen": 300}  # a twelfth
    assert counts_by_kind(replayed(forget[:8], [], config, 0, base, most=2500)) == {"seen": 8 * 16}  # a twelfth is more than these


def test_altering_keeps_the_size_and_follows_from_the_seed() -> None:
    first, again = (altered_picture(PICTURE, Random(3)) for _ in range(2))
    assert first.open().size == (24, 24) and first.read() == again.read() != PICTURE.read()
    large = ImageRef.from_picture(Image.new("RGB", (2048, 512), (200, 30, 30)))
    assert altered_picture(large, Random(3)).open().size == (1024, 256)


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
