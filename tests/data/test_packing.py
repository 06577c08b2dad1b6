"""Packed rows by hand: the shared prefix, the attention mask, and the places of answers."""

import numpy as np
import pytest
import torch

from tests.conftest import example
from vgid.data.batching import Encoder
from vgid.data.example import Example, ImageRef
from vgid.data.packing import PAD, Packing, Style, describe, groups, lay_out
from vgid.models.loading import LoadedModel

IMAGE = 9


def row(*tokens: int) -> torch.Tensor:
    return torch.tensor(tokens)


def test_groups_are_questions_about_the_same_pictures() -> None:
    a, b = ImageRef(data=b"a"), ImageRef(data=b"b")
    asked = [("q", (a,)), ("r", (b,)), ("s", (a,)), ("t", ()), ("u", (a,)), ("t", ()), ("v", (a, b)), ("w", ())]
    examples = [Example(id=str(i), question=question, answer="x", images=images) for i, (question, images) in enumerate(asked)]
    assert groups(examples, most=2) == [[0, 2], [4], [1], [3, 5], [6], [7]]  # without a picture: only the very same question
    assert groups(examples, most=1) == [[0], [2], [4], [1], [3], [5], [6], [7]]
    assert groups([], most=2) == []


def test_layout_and_mask_by_hand() -> None:
    """Two rows: picture 9 9, word 5; then 6 | 7 (prompt 4, answer 7) and 8 | 1 2 (prompt 4, answer 1 2)."""
    rows = [row(9, 9, 5, 6, 7), row(9, 9, 5, 8, 1, 2)]
    (layout,) = lay_out([4, 7], rows, [4, 4], {IMAGE})
    assert (layout.members, layout.prefix, layout.starts, layout.length) == ((4, 7), 3, (3, 5), 8)
    assert layout.packed_positions(0, np.array([2, 3])).tolist() == [2, 3]
    assert layout.packed_positions(1, np.array([2, 3, 4])).tolist() == [2, 5, 6]
    packing = describe([layout], [row(9, 9, 5, 6, 7, 8, 1, 2)], [0] * 4 + [4, 0, 0, 4], {IMAGE}, look_ahead=False)
    assert packing.segments.tolist() == [[0, 0, 0, 1, 1, 2, 2, 2]]
    assert packing.places.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5]]
    assert packing.pictures.tolist() == [[1, 1, 0, 0, 0, 0, 0, 0]]
    assert packing.ends[[4, 7]].tolist() == [[0, 1, 3], [0, 2, 5]]  # row, segment, last word of the prompt
    assert packing.mask()[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 1, 0, 0],
        [1, 1, 1, 0, 0, 1, 1, 0],
        [1, 1, 1, 0, 0, 1, 1, 1],
    ]
    # Only a picture's own tokens look ahead; a window counts places, not what lies between in the packed row.
    assert packing._replace(look_ahead=True).mask()[0, 0, 0].int().tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    assert packing.mask(window=3)[0, 0, 5].int().tolist() == [0, 1, 1, 0, 0, 1, 0, 0]


def test_padding_sees_something_and_is_seen_by_nobody() -> None:
    segments = torch.tensor([[0, 1, PAD]])
    mask = Packing(segments, torch.tensor([[0, 1, 0]]), torch.zeros_like(segments), torch.zeros(0, 3), False).mask()[0, 0]
    assert mask.int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 1]]


def test_the_same_question_with_several_answers_shares_its_whole_prompt() -> None:
    rows = [row(9, 5, 6, 7), row(9, 5, 6, 8, 8), row(9, 5, 6, 7)]
    (layout,) = lay_out([0, 1, 2], rows, [3, 3, 3], {IMAGE})
    assert (layout.prefix, layout.starts, layout.length) == (3, (3, 4, 6), 7)


def test_rows_with_words_before_their_picture_share_nothing() -> None:
    rows = [row(5, 9, 7), row(6, 9, 7)]
    alone = lay_out([0, 1], rows, [2, 2], {IMAGE})
    assert [(layout.members, layout.length) for layout in alone] == [((0,), 3), ((1,), 3)]


@pytest.mark.parametrize("questions", [1, 2, 8])
def test_packed_answers_are_the_plain_ones_in_the_same_order(random_model: LoadedModel, questions: int) -> None:
    encoder = Encoder(random_model.processor)
    first, second = example(0), example(1)
    rows = [
        first,
        second,
        Example(id="c", question="Where does this person live?", answer="In Oslo.", images=first.images),
        example(3, image=False),
        Example(id="d", question="Who?", answer="Anna.", images=first.images),
    ]
    plain, packed = encoder.batch(rows), encoder.batch(rows, packing=Style(questions))
    assert torch.equal(plain.answers.targets, packed.answers.targets) and torch.equal(plain.owners, packed.owners)
    assert packed.ids == plain.ids and packed.packing is not None
    tensor_rows, positions, targets = packed.answers
    assert len(packed.model_inputs["input_ids"]) == {1: 5, 2: 4, 8: 3}[questions]
    assert len(packed.model_inputs["pixel_values"]) == {1: 4, 2: 3, 8: 2}[questions]
    # Each answer token stands one place behind the one that predicts it, but for first tokens behind a shared prompt.
    places = packed.packing.places[tensor_rows, positions]
    assert torch.equal(places, plain.answers.positions)
    assert (packed.model_inputs["input_ids"][tensor_rows, positions + 1] == targets).all()
