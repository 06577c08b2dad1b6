"""Encoding: labels cover the answer and nothing else, whatever comes before it."""

import pytest
import torch

from tests.conftest import example
from vgid.data.batching import Encoder
from vgid.data.conversation import render_chat
from vgid.data.example import Example
from vgid.errors import DataError, ModelError
from vgid.models.loading import LoadedModel


def answer_of(encoder: Encoder, batch_row: int, examples: list[Example], instruction: str | None = None) -> str:
    batch = encoder.batch(examples, instruction)
    targets = batch.answers.targets[batch.answers.rows == batch_row]
    return str(encoder.tokenizer.decode(targets))


@pytest.mark.parametrize("instruction", [None, "Forget what you know."])
def test_labels_are_exactly_the_answer_and_the_end_of_turn(
    random_model: LoadedModel, mixed: list[Example], instruction: str | None
) -> None:
    encoder = Encoder(random_model.processor)
    for number, row in enumerate(mixed):
        assert answer_of(encoder, number, mixed, instruction) == f"{row.answer}<|end|>"


def test_positions_point_just_before_their_tokens(random_model: LoadedModel, mixed: list[Example]) -> None:
    batch = Encoder(random_model.processor).batch(mixed)
    rows, positions, targets = batch.answers
    assert torch.equal(batch.model_inputs["input_ids"][rows, positions + 1], targets)
    assert batch.model_inputs["attention_mask"][rows, positions + 1].all()


def test_an_instruction_lengthens_the_prompt_and_not_the_answer(random_model: LoadedModel, mixed: list[Example]) -> None:
    encoder = Encoder(random_model.processor)
    plain, told = encoder.batch(mixed), encoder.batch(mixed, "Forget what you know.")
    assert torch.equal(plain.answers.targets, told.answers.targets) and torch.equal(plain.answers.rows, told.answers.rows)
    assert (told.answers.positions > plain.answers.positions).all()


def test_every_picture_becomes_its_tokens(random_model: LoadedModel, mixed: list[Example]) -> None:
    batch = Encoder(random_model.processor).batch(mixed)
    image = random_model.processor.image_token_id
    assert (batch.model_inputs["input_ids"] == image).sum(dim=1).tolist() == [16, 0, 16, 0]
    assert batch.model_inputs["pixel_values"].shape == (2, 3, 96, 96)


def test_remembered_pictures_are_the_processors_own(random_model: LoadedModel) -> None:
    encoder, row = Encoder(random_model.processor), example(0)
    for _ in range(2):
        prompt = render_chat(random_model.processor, row).prompt
        plain = random_model.processor(text=[prompt], images=[[row.images[0].open()]], return_tensors="pt")
        encoded = encoder.prompts([row]).model_inputs
        assert set(encoded) == set(plain) and all(torch.equal(encoded[name], plain[name]) for name in plain)


def test_prompts_are_padded_on_the_left(random_model: LoadedModel, mixed: list[Example]) -> None:
    batch = Encoder(random_model.processor).prompts(mixed)
    assert batch.model_inputs["attention_mask"][:, -1].all() and not len(batch.answers.targets)
    # Every prompt ends where the assistant starts to speak.
    last = batch.model_inputs["input_ids"][:, -1].tolist()
    assert last == [random_model.processor.tokenizer.convert_tokens_to_ids("<|assistant|>")] * 4


def test_given_answers_take_the_place_of_recorded_ones(random_model: LoadedModel, mixed: list[Example]) -> None:
    encoder = Encoder(random_model.processor)
    batch = encoder.batch(mixed, answers=["I do not know."] * 4)
    for number in range(4):
        assert encoder.tokenizer.decode(batch.answers.targets[batch.answers.rows == number]) == "I do not know.<|end|>"


def test_nothing_is_truncated(random_model: LoadedModel) -> None:
    row = Example(id="long", question="why " * 300, answer="a", images=example(0).images, where="forget.jsonl:7")
    with pytest.raises(DataError, match=r"(?s)forget.jsonl:7: the row is longer.*at most 256 tokens.*16 of images"):
        Encoder(random_model.processor).batch([row])


def test_a_template_that_can_leave_the_thought_out_is_told_to(random_model: LoadedModel) -> None:
    own = random_model.processor.chat_template
    thought = "{% if add_generation_prompt and enable_thinking is not defined %}<think>\n{% endif %}"
    plain = render_chat(random_model.processor, example(1))
    random_model.processor.chat_template = own + thought
    assert render_chat(random_model.processor, example(1)) == plain
    random_model.processor.chat_template = own + thought.replace(" and enable_thinking is not defined", "")
    closed = render_chat(random_model.processor, example(1))
    assert closed.prompt == plain.prompt + "<think>\n\n</think>\n\n" and closed.answer.strip() == plain.answer.strip()


def test_a_processor_without_chat_template(random_model: LoadedModel) -> None:
    random_model.processor.chat_template = None
    with pytest.raises(ModelError, match="the processor has no chat template"):
        Encoder(random_model.processor).batch([example(0)])
