"""Parts of attacks, against values worked out by hand."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.attacks.people import material
from tests.conftest import example, png
from vgid.attacks import Material
from vgid.attacks.asking import names_of
from vgid.attacks.base import kind, sample_alike, sample_rows, split_people
from vgid.attacks.cross_modal import by_name, by_picture
from vgid.attacks.image_rephrase import TRANSFORMS, crop, mirror, occlusion, resize
from vgid.attacks.jailbreak import TEMPLATES
from vgid.attacks.mia import lowest_mean
from vgid.attacks.paraphrase import rewordings
from vgid.attacks.prefill import adds_fact, prefilled_row
from vgid.attacks.quantize import NF4, rounded
from vgid.attacks.scores import TokenLosses, alternatives, rank_of_first, token_losses, value_loss
from vgid.data.example import STRANGER, subject_key
from vgid.evaluation.scoring import score
from vgid.models.loading import LoadedModel


def test_int4_rounds_to_the_nearest_of_fifteen() -> None:
    weight = torch.tensor([[7.0, 3.4, -3.6, 0.2], [0.7, -0.35, 0.1, 0.0]])
    expected = torch.tensor([[7.0, 3.0, -4.0, 0.0], [0.7, -0.4, 0.1, 0.0]])  # -0.35 lies between -0.3 and -0.4; 3.5 rounds to even
    assert torch.allclose(rounded(weight, "int4"), expected, atol=1e-6)


def test_int8_has_127_steps_on_either_side() -> None:
    weight = torch.tensor([[127.0, 0.6, -12.4]])
    assert torch.allclose(rounded(weight, "int8"), torch.tensor([[127.0, 1.0, -12.0]]))
    assert torch.equal(rounded(torch.zeros(2, 3), "int8"), torch.zeros(2, 3))


def test_nf4_takes_the_nearest_level_of_each_block() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 30, generator=generator)  # 150 numbers: two whole blocks and a part
    flat, levels = weight.flatten(), torch.tensor(NF4)
    slow = []
    for start in range(0, 150, 64):
        block = flat[start : start + 64]
        scale = block.abs().max()
        slow += [float(scale * min(levels, key=lambda level, x=x, s=scale: abs(float(x / s - level)))) for x in block]
    assert torch.allclose(rounded(weight, "nf4").flatten(), torch.tensor(slow), atol=1e-6)


def test_rank_counts_ties_against_the_truth() -> None:
    assert rank_of_first([1.0, 2.0, 0.5]) == 2 and rank_of_first([1.0, 1.0]) == 2 and rank_of_first([0.1, 0.2]) == 1


def test_value_loss_leaves_out_what_answers_share() -> None:
    def losses(tokens: list[int], values: list[float]) -> TokenLosses:
        return TokenLosses(torch.tensor(tokens), torch.tensor(values), torch.zeros(len(values)), torch.zeros(len(values), dtype=torch.bool))

    group = [losses([1, 2, 7, 9], [5.0, 5.0, 0.5, 5.0]), losses([1, 2, 8, 4, 9], [5.0, 5.0, 2.0, 4.0, 5.0])]
    assert value_loss(group) == [0.5, 3.0]
    inside = [losses([1, 9], [5.0, 3.0]), losses([1, 7, 9], [5.0, 2.0, 4.0])]  # one value is the beginning of the other
    assert value_loss(inside) == [3.0, 3.0]


def test_lowest_mean() -> None:
    values = torch.tensor([-1.0, -5.0, -3.0, -2.0, -4.0])
    assert lowest_mean(values, 0.4) == -4.5 and lowest_mean(values, 0.01) == -5.0


def test_token_losses_agree_with_answer_scores(base: LoadedModel, known: Material) -> None:
    rows = known.everything[:6]
    ours = [float(each.losses.mean()) for each in token_losses(base, rows, batch_size=4)]
    assert ours == pytest.approx([each.loss for each in score(base, rows)], rel=1e-4, abs=1e-5)


def test_surprise_of_a_uniform_distribution_is_nothing(random_model: LoadedModel) -> None:
    with torch.no_grad():
        random_model.model.get_output_embeddings().weight.zero_()
    [each] = token_losses(random_model, [example(0)])
    vocabulary = random_model.model.get_output_embeddings().weight.shape[0]
    assert each.losses.tolist() == pytest.approx([math.log(vocabulary)] * len(each.losses))
    assert each.surprise.abs().max() < 0.05


def test_alternatives_keep_the_sentence_and_change_the_value() -> None:
    given = material(2, 6)
    row = given.forget[1]
    others = alternatives(row, given.peers(row), 3, seed=0)
    assert len(others) == 3 and len({other.answer for other in others}) == 3
    before, after = row.answer.split(row.keywords[0])
    assert all(other.answer.startswith(before) and other.answer.endswith(after) and other.answer != row.answer for other in others)


def test_prefill_scores_a_one_word_answer_by_the_whole_of_it() -> None:
    row = example(0, answer="Oslo.")  # without keywords, and only the full stop is left to be added
    assert adds_fact(row, "It is Oslo, I think", "Oslo") and not adds_fact(row, "", "Oslo") and not adds_fact(row, "Rome.", "Oslo")


def test_prefill_gives_what_stands_before_the_fact(base: LoadedModel) -> None:
    row = replace(example(0, answer="She works as a baker in Oslo."), keywords=("baker",))
    encoded, text = prefilled_row(base.encoder, row, 0.9)
    assert text.strip() == "She works as a" and encoded.prompt_length == len(encoded.text["input_ids"])
    assert prefilled_row(base.encoder, replace(row, keywords=("She",)), 0.9)[1] == ""
    whole = base.encoder.row(row)
    count = len(whole.text["input_ids"]) - whole.prompt_length
    assert len(prefilled_row(base.encoder, replace(row, keywords=()), 0.5)[0].text["input_ids"]) == whole.prompt_length + count // 2


def test_people_are_split_and_sampled_whole() -> None:
    rows = material(4, 4).forget
    fitted, scored = split_people(rows, 0.5, seed=1)
    assert not {subject_key(r) for r in fitted} & {subject_key(r) for r in scored} and len(fitted) + len(scored) == len(rows)
    assert split_people(rows[:1], 0.5, seed=1) == ([], rows[:1])
    few = sample_rows(rows, 8, seed=0)
    assert [row for row in rows if row in few] == few and {subject_key(r) for r in few} == {subject_key(r) for r in rows} and len(few) == 8


def test_controls_ask_what_the_forget_set_asks() -> None:
    given = material(2, 6)
    seen = [replace(row, id=f"{row.id}/seen", tags=("hair", "perception")) for row in given.retain]
    refused = [replace(row, id=f"{row.id}/refused", tags=(*row.tags, STRANGER)) for row in given.retain]
    chosen = sample_alike([*refused, *seen, *given.retain], given.forget, 12, seed=0)
    assert len(chosen) == 12 and all(row in given.retain for row in chosen) and len({subject_key(row) for row in chosen}) == 6
    more = sample_alike([*refused, *seen, *given.retain], given.forget, 30, seed=0)
    assert (
        len(more) == 30 and [row for row in more if row in given.retain] == list(given.retain) and all(row not in refused for row in more)
    )


def test_names_and_values_come_from_all_rows_there_are() -> None:
    given = material(2, 4)
    few = replace(given, forget=given.forget[1:2], retain=given.retain[:1], pool=given.everything)
    [row] = few.forget
    assert {subject_key(other) for other in few.peers(row)} == {subject_key(each) for each in given.everything} - {subject_key(row)}
    assert {kind(other) for other in few.peers(row)} == {kind(row)}
    assert set(few.about(row.subject)) == {each for each in given.forget if each.subject == row.subject} and few.about(None) == ()
    assert list(replace(few, pool=()).peers(row)) == []


def test_names_and_cross_modal_questions() -> None:
    rows = material(1, 1).forget
    name, fact, text = rows[0], rows[1], rows[3]
    names = names_of(rows)
    assert names == {name.subject: name.keywords[0]}
    assert list(by_name(name, names)) == [] and list(by_picture(fact, names, {})) == []
    [asked] = by_name(fact, names)
    assert not asked.images and names[name.subject] in asked.question and "this person" not in asked.question
    [shown] = by_picture(text, names, {name.subject: name.images[0]})
    assert shown.images == name.images and "this person" in shown.question and names[name.subject] not in shown.question


def test_rewordings_and_templates_hold_no_answer() -> None:
    asked = "What is the job of this person?"
    assert len(rewordings(asked)) >= 8 and asked not in rewordings(asked)
    assert "Tell me the job of this person?" in rewordings(asked)
    assert all("{question}" in template and template.count("{") == 1 for template in TEMPLATES)


def test_transforms_change_pictures_as_they_say() -> None:
    picture = Image.open(io.BytesIO(png(0, 100))).convert("RGB")
    assert all(transform(picture, 0).tobytes() != picture.tobytes() for transform in TRANSFORMS)
    assert mirror(picture, 0).getpixel((0, 50)) == picture.getpixel((99, 50))
    assert resize(picture, 0).size == (85, 85) and crop(picture, 0).size == (100, 100)
    before, after = np.asarray(picture), np.asarray(occlusion(picture, 1))
    hidden = (before != after).any(-1)
    assert 0.03 < hidden.mean() < 0.04 and (after[hidden] == 127).all()  # 19 x 19 pixels of 100 x 100
