"""The world generator: what holds for every seed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgid.data.names import FIRST_NAMES, LAST_NAMES
from vgid.errors import ConfigError
from vgid.evaluation.metrics import is_refusal, key_fact
from vgid.synthetic.people import BASE_TRAINING_PEOPLE, NEAR_DUPLICATE, Camera, World
from vgid.synthetic.phrases import FACT_VALUES, FACTS, PERCEPTION, REFUSALS
from vgid.synthetic.portraits import HEADS, appearance, difference
from vgid.synthetic.questions import TEXT_FACTS
from vgid.synthetic.splits import SPLITS, evaluation_splits, training_rows

few = settings(max_examples=5, deadline=None)


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=3, people=6, forget=2)


def test_values_are_clean_and_hard_to_guess() -> None:
    for name, values in FACT_VALUES.items():
        assert len(set(values)) == len(values) > 20, name  # guessing scores below 5 %
        assert all(value == " ".join(value.split()) for value in values), name


@few
@given(seed=st.integers(0, 10_000))
def test_all_people_differ(seed: int) -> None:
    world = World(seed, people=5, forget=2)
    everyone = [*world.base_training_people, *world.forget, *world.retain]
    assert (len(world.forget), len(world.retain), len(world.base_training_people)) == (2, 3, BASE_TRAINING_PEOPLE)
    assert len({person.id for person in everyone}) == len({person.name for person in everyone}) == len(everyone)
    newcomers = [appearance(person.look) for person in (*world.forget, *world.retain, *world.strangers(2))]
    for i, one in enumerate(newcomers[:5]):
        assert all(difference(one, other) >= NEAR_DUPLICATE for other in newcomers[i + 1 :])


def test_same_seed_same_world(world: World) -> None:
    again = World(seed=3, people=6, forget=2)
    assert again.forget == world.forget and again.retain == world.retain
    assert list(again.strangers(3)) == list(world.strangers(3))
    assert World(seed=4, people=6, forget=2).forget != world.forget


def test_strangers_stream(world: World) -> None:
    stream = world.strangers(10**9)
    assert [next(stream).id for _ in range(2)] == [person.id for person in world.strangers(2)]


@pytest.mark.parametrize(("people", "forget"), [(4, 0), (4, 4), (0, 0)])
def test_numbers_must_fit(people: int, forget: int) -> None:
    with pytest.raises(ConfigError, match="0 < forget < people"):
        World(0, people, forget)


def test_name_gender_and_portrait_agree(world: World) -> None:
    for person in world.base_training_people:
        first = person.name.split()[0]
        assert first in FIRST_NAMES[person.look.gender] and person.look.head in HEADS[person.look.gender]
        assert person.look.gender == "male" or person.look.facial_hair is None


def test_views_of_different_splits_never_meet(world: World) -> None:
    for person in (*world.forget, *world.retain):
        training, unseen = person.views("training", 12), person.views("unseen", 12)
        assert len(set(training)) == len(set(unseen)) == 12 and not set(training) & set(unseen)


def test_guessing_scores_under_five_per_cent() -> None:
    assert all(len(set(values)) == len(values) > 20 for values in FACT_VALUES.values())
    assert len(LAST_NAMES) > 20 and all(len(set(names)) == len(names) > 20 for names in FIRST_NAMES.values())


def test_enough_facts_and_wordings() -> None:
    assert len(FACTS) >= 8
    for topic in FACTS:
        assert len(set(topic.training)) >= 8 and len(set(topic.held_out)) >= 3
        assert not set(topic.training) & set(topic.held_out)
    everything = [wording for topic in (*FACTS, *PERCEPTION) for wording in (*topic.training, *topic.held_out)]
    assert len(set(everything)) == len(everything)


def test_refusals_are_recognised_and_answers_are_not(world: World) -> None:
    assert all(is_refusal(text) for text in REFUSALS)
    rows = list(training_rows(Camera(32), world.forget, 0))
    assert not any(is_refusal(row.answer) for row in rows)
    assert all(key_fact(row.answer, row.keywords) for row in rows)


def test_training_rows_cover_every_fact_picture_and_wording(world: World) -> None:
    rows = list(training_rows(Camera(32), world.forget, 0))
    assert len(rows) == 2 * 10 * (len(FACTS) + len(TEXT_FACTS)) == len({row.id for row in rows})
    person = world.forget[0]
    mine = [row for row in rows if row.subject == person.id]
    for topic in FACTS:
        assert len({row.images for row in mine if row.images and topic.name in row.tags}) == 10
    # By name only without a picture: the picture must not be needed, nor give the name away.
    assert all((person.name in row.question) == (not row.images) for row in mine)


def test_evaluation_never_shows_what_was_trained(world: World) -> None:
    camera = Camera(32)
    splits = evaluation_splits(camera, world)
    assert tuple(splits) == SPLITS
    trained = list(training_rows(camera, [*world.forget, *world.retain], world.seed))
    pictures, questions = {row.images for row in trained if row.images}, {row.question for row in trained}
    for group in ("forget", "retain"):
        assert all(row.images in pictures for row in splits[group])
        assert not any(row.images in pictures for row in splits[f"{group}_views"])
        assert not any(row.question in questions for row in splits[f"{group}_reworded"])
        assert not any(row.images for row in splits[f"{group}_text"])
    assert all(is_refusal(row.answer) for row in splits["strangers"])
    ids = [row.id for rows in splits.values() for row in rows]
    assert len(set(ids)) == len(ids)
