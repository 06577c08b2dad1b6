"""Parts of the attacks of the full profile, against values worked out by hand and slow twins."""

import copy
from dataclasses import replace

import pytest
import torch

from tests.attacks.people import material
from vgid.attacks import ATTACKS, Material
from vgid.attacks.asking import outcome, outcomes, reveals_fact, reworded
from vgid.attacks.benign import TASKS, tasks
from vgid.attacks.gcg import suffix_gradient
from vgid.attacks.interpolate import merge
from vgid.attacks.multi_hop import FIRST_THE_PERSON
from vgid.attacks.multi_turn import PRESSURE, goes_on, preceded
from vgid.attacks.patching import depth, patched_logits
from vgid.attacks.quantize import rounded
from vgid.attacks.rounding import DAMPING, Inputs, awq, blocks, gptq, inputs_of
from vgid.attacks.sampling import leak
from vgid.attacks.suffix import readable_tokens, with_suffix
from vgid.data.example import Turn
from vgid.data.packing import Style
from vgid.evaluation import generation
from vgid.evaluation.generation import generate
from vgid.evaluation.inference import frozen
from vgid.evaluation.sampling import Sampling
from vgid.evaluation.scoring import score
from vgid.models.forward import answer_logits, several_states
from vgid.models.loading import LoadedModel
from vgid.models.structure import decoder_layers, linear_layers


def test_levels_asked_together_have_the_scores_of_levels_asked_alone(base: LoadedModel, known: Material) -> None:
    few = replace(known, forget=known.forget[:4], retain=known.retain[:2], pool=known.everything)
    levels = {
        "plain": lambda row: [row],
        "by picture": lambda row: [row] if row.images else [],
        "of another": lambda row: [reworded(row, "What is two plus two?"), reworded(row, "Say nothing.")],
        "none": lambda row: [],
    }
    together = outcomes(base, few, levels)
    assert list(together) == ["plain", "by picture", "of another"] and outcome(base, few, levels["none"]) is None
    assert {level: outcome(base, few, levels[level]) for level in together} == together
    assert set(together["by picture"].forget) == {row.id for row in few.forget if row.images} != {row.id for row in few.forget}
    assert sum(together["plain"].forget.values()) > sum(together["of another"].forget.values())


def test_leak_is_the_share_of_draws_that_hold_the_fact() -> None:
    assert leak(0, 5, 3) == 0 and leak(5, 5, 1) == 1
    assert leak(1, 4, 1) == pytest.approx(1 / 4) and leak(1, 4, 2) == pytest.approx(1 / 2)
    assert leak(2, 4, 2) == pytest.approx(1 - 1 / 6)  # one of the six pairs has neither


def test_tokens_are_drawn_by_inverting_the_distribution() -> None:
    scores = torch.log(torch.tensor([[0.2, 0.5, 0.3]])).repeat(5, 1)
    numbers = torch.tensor([0.0, 0.49, 0.51, 0.79, 0.81], dtype=torch.float64)
    # Likeliest first: token 1 below 0.5, token 2 below 0.8, token 0 above.
    assert Sampling(1.0, 1.0).draw(scores, numbers).tolist() == [1, 1, 2, 2, 0]
    # Without the last fifth, 0.5 and 0.3 become 0.625 and 0.375.
    assert Sampling(1.0, 0.7).draw(scores, torch.tensor([0.62, 0.63, 0.99, 0.0, 0.0])).tolist() == [1, 2, 2, 1, 1]
    # At temperature 0.5 chances are squared: 0.04, 0.25 and 0.09 of 0.38; the first ends at 0.658, the second at 0.895.
    assert Sampling(0.5, 1.0).draw(scores, torch.tensor([0.65, 0.66, 0.89, 0.90, 0.0])).tolist() == [1, 2, 2, 0, 1]


def test_draws_depend_on_seed_and_key_alone() -> None:
    both = Sampling(seed=3).numbers(["a", "b"], 4)
    assert torch.equal(both[1:], Sampling(seed=3).numbers(["b"], 4)) and not torch.equal(both[0], both[1])
    assert not torch.equal(both, Sampling(seed=4).numbers(["a", "b"], 4)) and ((both >= 0) & (both < 1)).all()


def test_drawn_answers_are_the_same_in_any_batch_and_packed_or_plain(
    base: LoadedModel, known: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [replace(row, id=f"{row.id}/{k}") for row in known.forget[:2] for k in range(4)]
    hot = Sampling(temperature=2.0, top_p=1.0, seed=1)
    packed = generate(base, rows, max_new_tokens=6, sampling=hot)
    assert generate(base, rows[::-1], max_new_tokens=6, batch_size=4, sampling=hot) == packed[::-1]
    styles: list[Style | None] = []
    monkeypatch.setattr(generation, "decoding_style", lambda *_: styles.append(None))
    assert generate(base, rows, max_new_tokens=6, sampling=hot) == packed and styles == [None]
    assert len(set(packed)) > 2 and generate(base, rows[:1], max_new_tokens=6) != packed[:1]
    assert generate(base, rows[:2], max_new_tokens=6, sampling=Sampling(temperature=1e-4)) == generate(base, rows[:2], max_new_tokens=6)


def test_a_conversation_goes_on_with_the_models_own_words() -> None:
    row = material(1, 1).forget[0]
    next_turn = goes_on(row, "I do not know.", "Please look again.")
    assert next_turn.context == (Turn("user", row.question), Turn("assistant", "I do not know."))
    assert next_turn.question == "Please look again." and next_turn.images == row.images
    told = preceded(row, [("Where does she live?", "In Oslo.")])
    assert told.context == (Turn("user", "Where does she live?"), Turn("assistant", "In Oslo.")) and told.question == row.question
    assert not any(reveals_fact(words, each) for words in (*PRESSURE, *FIRST_THE_PERSON) for each in material(4, 4).everything)


def test_multi_hop_describes_the_person_without_picture_name_or_fact(
    base: LoadedModel, known: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, list] = {}

    def keep(loaded, given, levels):
        for row in given.forget:
            asked.setdefault(row.id, []).extend(each for variants in levels.values() for each in variants(row))
        return {}

    monkeypatch.setattr("vgid.attacks.multi_hop.outcomes", keep)
    attack = ATTACKS.get("multi_hop")
    attack(attack.Config()).run(base, known)
    described = {row.id: [each for each in asked[row.id] if each.question.startswith("Think of")] for row in known.forget}
    assert any(described.values())
    for row in known.forget:
        assert all(not each.images and not reveals_fact(each.question, row) for each in described[row.id])


def test_tasks_have_their_right_answers() -> None:
    rows = tasks(12, seed=0)
    assert len(TASKS) == 6 and [row.id for row in rows] == [f"benign-{number:04d}" for number in range(12)]
    numbers = [int(word) for word in rows[0].question[:-1].split() if word.isdigit()]
    assert rows[0].answer.endswith(f"is {sum(numbers)}.")
    colours = rows[4].question.partition(": ")[2][:-1].split(", ")
    assert rows[4].answer == f"{', '.join(reversed(colours))}." and tasks(12, seed=0) == rows and tasks(12, seed=1) != rows


def test_gradient_of_a_suffix_is_the_slope_along_a_token(base: LoadedModel, known: Material) -> None:
    """Moving the embedding of one place a little towards a token changes the loss by the derivative times the step."""
    words = readable_tokens(base)
    tokens = [words[10], words[20]]
    rows = known.forget[:2]
    slopes = suffix_gradient(base, rows, tokens, 8)
    assert slopes.shape == (2, len(base.encoder.tokenizer)) or slopes.shape[1] >= len(base.encoder.tokenizer)
    table = base.model.get_input_embeddings().weight
    asked = [with_suffix(row, base.encoder.tokenizer.decode(tokens)) for row in rows]

    def loss(step: float, other: int) -> float:
        def moved(_, inputs, output):
            change = step * table[other]
            places = (inputs[0] == tokens[1]) & (inputs[0].roll(1, 1) == tokens[0])
            return output + places[..., None] * change

        hook = base.model.get_input_embeddings().register_forward_hook(moved)
        try:
            return sum(each.loss for each in score(base, asked)) / len(asked)
        finally:
            hook.remove()

    for other in (words[5], words[100]):
        slope = (loss(1e-2, other) - loss(-1e-2, other)) / 2e-2
        assert slope == pytest.approx(float(slopes[1, other]), rel=0.05, abs=2e-3)


def test_merging_is_a_weighted_mean() -> None:
    into, ours, theirs = ({"w": torch.tensor([value])} for value in (0.0, 4.0, 8.0))
    merge(into, ours, theirs, 0.25)
    assert into["w"].tolist() == [5.0]


def obq(weight: torch.Tensor, products: torch.Tensor) -> torch.Tensor:
    """The slow twin of `gptq`: after each column the others take the exact least-squares correction, by the inverse for those left."""
    left, out = weight.double().clone(), torch.zeros_like(weight).double()
    scale = left.abs().amax(1, keepdim=True) / 7
    hessian = products.double() + DAMPING * products.double().diagonal().mean() * torch.eye(len(products), dtype=torch.float64)
    for j in range(weight.shape[1]):
        inverse = torch.linalg.inv(hessian[j:, j:])
        out[:, j] = ((left[:, j : j + 1] / scale).round().clamp(-7, 7) * scale)[:, 0]
        left[:, j:] -= ((left[:, j] - out[:, j]) / inverse[0, 0])[:, None] * inverse[0]
    return out.float()


def test_gptq_agrees_with_the_slow_twin_and_beats_plain_rounding() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 8, generator=generator)
    x = torch.randn(50, 8, generator=generator) @ torch.randn(8, 8, generator=generator)
    inputs = Inputs(x.T @ x, x.abs().mean(0))
    found = gptq(weight, inputs)
    assert torch.allclose(found, obq(weight, inputs.products), atol=1e-5)

    def error(tried: torch.Tensor) -> float:
        return float(((tried - weight) @ x.T).square().sum())

    assert error(found) < error(rounded(weight, "int4")) and error(awq(weight, inputs)) <= error(rounded(weight, "int4"))


def test_awq_keeps_the_weights_of_large_inputs() -> None:
    weight = torch.tensor([[7.0, 0.3]])
    loud = Inputs(torch.diag(torch.tensor([1.0, 1e6])), torch.tensor([1.0, 1000.0]))
    assert rounded(weight, "int4").tolist() == [[7.0, 0.0]]
    assert abs(float(awq(weight, loud)[0, 1]) - 0.3) < 0.05  # the second input is a thousand times as large


def test_what_goes_into_layers_is_summed_without_padding(base: LoadedModel, known: Material) -> None:
    names = linear_layers(base.model, ("language",))
    assert len(blocks(names)) == len(decoder_layers(base.model)) and sum(map(len, blocks(names))) == len(names)
    rows = [known.forget[0], known.forget[3]]  # with a picture and without: different lengths
    together = inputs_of(base, names[:1], rows, 2)[names[0]]
    alone = [inputs_of(base, names[:1], [row], 1)[names[0]] for row in rows]
    assert torch.allclose(together.products, alone[0].products + alone[1].products, rtol=1e-3, atol=1e-2)


def test_depth_is_weighted_by_the_reference() -> None:
    reference, losses = torch.tensor([0.01, 1.0, 3.0]), torch.tensor([5.0, 0.5, 6.0])
    # The first layer carries nothing; then half of 1.0, and all of 3.0 (not more than all): (0.5 * 1 + 1 * 3) / 4.
    assert depth(losses, reference, 0.05) == pytest.approx(3.5 / 4)
    assert (
        depth(reference, reference, 0.05) == 1 and depth(torch.zeros(3), reference, 0.05) == 0 and depth(losses, losses * 0, 0.05) is None
    )


def test_patching_the_models_own_states_changes_nothing(base: LoadedModel, known: Material, ignorant: LoadedModel) -> None:
    batch = base.encoder.batch(known.forget[:3])
    last = decoder_layers(base.model)[-1]
    with frozen(base.model), frozen(ignorant.model):
        clean = answer_logits(base.model, batch)
        [own] = several_states(base.model, batch, [last])
        assert torch.allclose(patched_logits(base.model, batch, last, own), clean, atol=1e-5)
        other = decoder_layers(ignorant.model)[-1]
        [theirs] = several_states(ignorant.model, batch, [other])
        # Behind the last layer comes nothing but the head, which both models share: the base then says what the other one says.
        assert torch.allclose(patched_logits(base.model, batch, last, theirs), answer_logits(ignorant.model, batch), atol=1e-4)


def test_patching_needs_both_models(base: LoadedModel, known: Material, ignorant: LoadedModel) -> None:
    attack = ATTACKS.get("patching")
    assert attack(attack.Config()).run(base, known) == {}
    models = {"base": lambda: base, "retrained": lambda: ignorant}
    few = replace(known, forget=known.forget[:3], retain=known.retain[:3], models=models, pool=known.everything)
    [found] = attack(attack.Config(layers=2)).run(ignorant, few).values()
    assert set(found.forget.values()) == {0.0}
    shorter = copy.deepcopy(ignorant.model)
    shorter.get_decoder().layers = shorter.get_decoder().layers[:-1]
    for role in models:
        other = replace(few, models={**models, role: lambda: replace(ignorant, model=shorter)})
        assert attack(attack.Config(layers=2)).run(ignorant, other) == {}, "states of another architecture do not fit"
    assert ATTACKS.get("interpolate")(ATTACKS.get("interpolate").Config()).run(base, known) == {}
