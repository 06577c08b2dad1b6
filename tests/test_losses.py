"""Losses against values worked out by hand."""

import math

import pytest
import torch

from vgid.losses import (
    answer_nll,
    dpo,
    flattening,
    kl_divergence,
    masked_kl,
    mean_over_examples,
    misdirection,
    npo,
    satimp,
    simnpo,
    sum_over_examples,
    top_logits,
    undial,
    wga,
)


def logits_of(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows).log()


def test_answer_nll_is_minus_log_probability() -> None:
    nll = answer_nll(logits_of((0.5, 0.25, 0.25), (0.1, 0.1, 0.8)), torch.tensor([1, 2]))
    assert nll.tolist() == pytest.approx([-math.log(0.25), -math.log(0.8)])


def test_kl_by_hand() -> None:
    # KL((1/2, 1/2) || (1/4, 3/4)) = 1/2 ln 2 + 1/2 ln(2/3) = 1/2 ln(4/3)
    teacher, student = logits_of((0.5, 0.5)), logits_of((0.25, 0.75))
    assert kl_divergence(teacher, student).item() == pytest.approx(0.5 * math.log(4 / 3))
    # The other way round: 1/4 ln(1/2) + 3/4 ln(3/2)
    reverse = kl_divergence(teacher, student, direction="reverse").item()
    assert reverse == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))


def test_kl_to_itself_is_zero_and_ignores_a_shift_of_logits() -> None:
    z = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    assert kl_divergence(z, z + 3.0).abs().max().item() < 1e-6


def test_temperature_softens_and_rescales() -> None:
    # Logits (ln 9, 0) at T = 2 are (ln 3, 0): p = (3/4, 1/4); the student is uniform. T^2 KL = 4 (3/4 ln 3/2 + 1/4 ln 1/2).
    teacher, student = torch.tensor([[math.log(9.0), 0.0]]), torch.zeros(1, 2)
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert kl_divergence(teacher, student, temperature=2.0).item() == pytest.approx(expected)


def test_mean_over_examples_weighs_examples_not_tokens() -> None:
    # Example 0: mean(1, 3) = 2; example 1: 8; the mean of both is 5, though the mean of tokens is 4.
    assert mean_over_examples(torch.tensor([1.0, 3.0, 8.0]), torch.tensor([0, 0, 1]), 2).item() == 5.0


@pytest.mark.parametrize(("values", "rows", "count", "expected"), [([], [], 1, 0.0), ([2.0], [0], 1, 2.0), ([2.0], [1], 2, 1.0)])
def test_mean_over_examples_of_little(values: list[float], rows: list[int], count: int, expected: float) -> None:
    out = mean_over_examples(torch.tensor(values), torch.tensor(rows, dtype=torch.long), count)
    assert out.item() == expected


def test_sum_over_examples_adds_tokens_up() -> None:
    assert sum_over_examples(torch.tensor([1.0, 3.0, 8.0]), torch.tensor([0, 0, 2]), 3).tolist() == [4.0, 0.0, 8.0]


def test_npo_by_hand() -> None:
    # p/p0 = 1/9 and beta = 1/2: sigma(-1/2 ln(1/9)) = sigma(ln 3) = 3/4, so the loss is -4 ln(3/4).
    log_p, log_p0 = torch.tensor([math.log(0.1)]), torch.tensor([math.log(0.9)])
    assert npo(log_p, log_p0, 0.5).item() == pytest.approx(-4 * math.log(0.75))


def test_npo_is_gradient_ascent_with_a_weight() -> None:
    log_p = torch.tensor([-1.0, -9.0], requires_grad=True)
    npo(log_p, torch.tensor([-2.0, -2.0]), 0.7).sum().backward()
    assert log_p.grad is not None
    weight = 2 / (1 + torch.exp(-0.7 * (log_p.detach() - torch.tensor([-2.0, -2.0]))))
    assert torch.allclose(log_p.grad, weight)
    # With beta -> 0 the weight is 1, whatever the answer's probability.
    (limit,) = torch.autograd.grad(npo(log_p, torch.tensor([-2.0, -2.0]), 1e-6).sum(), log_p)
    assert torch.allclose(limit, torch.ones(2), atol=1e-4)


def test_simnpo_by_hand() -> None:
    # mean log p = ln(1/4), beta = 1/2, margin = ln 2: sigma(ln 2 - ln 2) = 1/2, so the loss is 4 ln 2.
    assert simnpo(torch.tensor([math.log(0.25)]), 0.5, math.log(2)).item() == pytest.approx(4 * math.log(2))


def test_dpo_by_hand() -> None:
    # The refusal is 3 times as likely as before, the answer a third: sigma(1/2 ln 9) = 3/4.
    args = (torch.tensor([math.log(0.3)]), torch.tensor([math.log(0.1)]), torch.tensor([math.log(0.2)]), torch.tensor([math.log(0.6)]))
    assert dpo(*args, 0.5).item() == pytest.approx(-math.log(0.75))
    assert dpo(args[0], args[0], args[2], args[2], 0.1).item() == pytest.approx(math.log(2))


def test_undial_by_hand() -> None:
    # Base (1/2, 1/4, 1/4), answer token 0 held down by ln 2: targets (1/3, 1/3, 1/3). The student is (1/2, 1/4, 1/4).
    base = logits_of((0.5, 0.25, 0.25))
    assert undial(base, base, torch.tensor([0]), math.log(2)).item() == pytest.approx((math.log(2) + 2 * math.log(4)) / 3)


def test_undial_without_strength_has_nothing_to_teach_the_base() -> None:
    z = torch.randn(4, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    undial(z.detach(), z, torch.tensor([0, 1, 2, 3]), 0.0).sum().backward()
    assert z.grad is not None and z.grad.abs().max().item() < 1e-6


def test_misdirection_is_the_squared_distance() -> None:
    hidden = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    assert misdirection(hidden, torch.tensor([1.0, -1.0])).tolist() == [9.0, 2.0]


def test_wga_by_hand() -> None:
    # p = 1/4 and beta = 1/2: the weight is 1/2, the loss 1/2 ln(1/4) = -ln 2. With beta = 0 it is ln p.
    logits, target = logits_of((0.25, 0.75)), torch.tensor([0])
    assert wga(logits, target, 0.5).item() == pytest.approx(-math.log(2))
    assert wga(logits, target, 0.0).item() == pytest.approx(math.log(0.25))


def test_no_gradient_goes_through_the_weights_of_ascent() -> None:
    # d ln p / dz = (1 - p, -(1 - p)) at p = 1/4; times the weight 1/2, or times 1/4 x 3/4.
    for loss, weight in ((lambda z: wga(z, torch.tensor([0]), 0.5), 0.5), (lambda z: satimp(z, torch.tensor([0]), 1.0, 1.0), 3 / 16)):
        z = logits_of((0.25, 0.75)).requires_grad_()
        (slope,) = torch.autograd.grad(loss(z).sum(), z)
        assert slope.flatten().tolist() == pytest.approx([weight * 0.75, -weight * 0.75])


def test_satimp_by_hand() -> None:
    # p = 1/4: (1/4)^2 (3/4)^1 ln(1/4)
    assert satimp(logits_of((0.25, 0.75)), torch.tensor([0]), 2.0, 1.0).item() == pytest.approx(3 / 64 * math.log(0.25))


def test_flattening_by_hand() -> None:
    # (5 - 2)^2; a uniform distribution is flat.
    assert flattening(torch.tensor([[0.0, 1.0, 5.0], [4.0, 4.0, 4.0]])).tolist() == [9.0, 0.0]


def test_top_logits_by_hand() -> None:
    # The teacher's two largest are 3 and 2: |3 - 1| - 1/2 + (2 - 1.5)^2 / 2; the third does not count, however far it is.
    teacher, student = torch.tensor([[3.0, -9.0, 2.0]]), torch.tensor([[1.0, 9.0, 1.5]])
    assert top_logits(teacher, student, 2).item() == pytest.approx(1.625)
    assert top_logits(teacher, teacher, 5).item() == 0.0


def test_masked_kl_by_hand() -> None:
    # 1/2 ln(1/2 / 1/4) of the first word alone; all of them are the divergence, none of them nothing.
    teacher, student = logits_of((0.5, 0.25, 0.25)), logits_of((0.25, 0.5, 0.25))
    assert masked_kl(teacher, student, torch.tensor([False, True, True])).item() == pytest.approx(0.5 * math.log(2))
    whole = masked_kl(teacher, student, torch.zeros(3, dtype=torch.bool)).item()
    assert whole == pytest.approx(kl_divergence(teacher, student).item())
    assert masked_kl(teacher, student, torch.ones(3, dtype=torch.bool)).item() == 0.0
