"""Greedy answers: decoded together as decoded alone, whatever is packed, padded or dropped on the way."""

from itertools import islice

import pytest
import torch

from vgid.data.example import Example
from vgid.data.packing import Style
from vgid.evaluation.decoding import decode
from vgid.evaluation.generation import generate
from vgid.evaluation.inference import by_length
from vgid.evaluation.scoring import score
from vgid.models.loading import LoadedModel, load_model
from vgid.synthetic.people import Camera, World
from vgid.synthetic.splits import perception_rows, training_rows
from vgid.synthetic.tiny import tiny_path


@pytest.fixture(scope="module")
def rows() -> list[Example]:
    """Facts of a person the base knows (short and long answers), and what can be seen on the same pictures."""
    world, camera = World(seed=1, people=3, forget=1), Camera(96)
    facts = training_rows(camera, world.base_training_people[:2], 0)
    return [*islice(facts, 0, 150, 5), *perception_rows(camera, world.base_training_people[:2], 10, "training", 0)]


@pytest.fixture(scope="module")
def tiny() -> LoadedModel:
    return load_model(tiny_path())


def test_many_answers_of_different_lengths(tiny: LoadedModel, rows: list[Example]) -> None:
    alone = [generate(tiny, [row])[0] for row in rows]
    assert len({len(answer) for answer in alone}) > 5
    for batch_size in (7, 64):
        assert generate(tiny, rows, batch_size=batch_size) == alone


def test_decoding_stops_at_the_limit_and_fills_up_after_the_end(tiny: LoadedModel, rows: list[Example]) -> None:
    encoder, tokenizer = tiny.encoder, tiny.processor.tokenizer
    batch = encoder.pack([encoder.row(row, answer=None) for row in rows], rows, Style(8))
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    tokens = decode(tiny.model, batch, max_new_tokens=9, ends=[end], pad=pad).tokens
    assert tokens.shape == (len(rows), 9)
    ended = (tokens == end).cumsum(dim=1)
    assert ended.any() and (ended.sum(dim=1) == 0).any()
    assert (tokens[(ended > 0) & (tokens != end)] == pad).all()


def test_scores_of_packed_answers_are_those_of_rows_of_their_own(tiny: LoadedModel, rows: list[Example]) -> None:
    alone = torch.tensor([score(tiny, [row])[0].loss for row in rows])
    assert torch.allclose(torch.tensor([each.loss for each in score(tiny, rows)]), alone, atol=1e-5)


def test_batches_keep_groups_together_and_miss_nothing(rows: list[Example]) -> None:
    for size in (1, 5, 64):
        batches = list(by_length(rows, size, Style(4)))
        assert sorted(index for batch in batches for index in batch) == list(range(len(rows)))
        assert max(map(len, batches)) <= size
