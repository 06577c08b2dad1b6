"""Losses against values worked out by hand."""

import math

import pytest
import torch

from vgid.training.losses import answer_nll, kl_divergence, mean_over_examples


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
