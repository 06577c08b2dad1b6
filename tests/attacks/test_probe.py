"""The probe against a plain solution, and on a model of which it is known what is inside."""

import json
import os
import subprocess
import sys

import torch

from tests.attacks.people import material
from vgid.attacks.probe import Probe, ProbeConfig, ProbeItem, _shuffled, ridge
from vgid.models.loading import LoadedModel


def test_ridge_agrees_with_descent() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, targets, asked = (torch.randn(20, size, generator=generator) for size in (3, 2, 3))
    x = (inputs - inputs.mean(0)) / inputs.std(0)
    weights, intercept = torch.zeros(3, 2, requires_grad=True), torch.zeros(2, requires_grad=True)
    descent = torch.optim.LBFGS([weights, intercept], max_iter=200, tolerance_grad=1e-9)

    def loss() -> torch.Tensor:
        descent.zero_grad()
        value = ((x @ weights + intercept - targets) ** 2).sum() + 0.5 * 20 * (weights**2).sum()
        value.backward()
        return value

    descent.step(loss)
    expected = (asked - inputs.mean(0)) / inputs.std(0) @ weights + intercept
    assert torch.allclose(ridge(inputs, targets, asked, penalty=0.5), expected, atol=1e-4)


def test_facts_are_found_inside_a_model_that_knows_them_and_not_by_guessing(base: LoadedModel) -> None:
    given = material(6, 40, facts=5, texts=0)
    outcomes = Probe(ProbeConfig(layers=2, rows=100, shuffles=4)).run(base, given)
    assert list(outcomes) == ["layer 2 of 5", "layer 5 of 5"]
    last = outcomes["layer 5 of 5"]
    assert 0.25 <= last.chance < 0.45, "exchanged values bring no more than guessing"
    rate = sum(last.forget.values()) / len(last.forget)
    assert rate >= last.chance + 0.2 and sum(last.control.values()) / len(last.control) >= last.chance + 0.2


def test_exchanged_values_do_not_depend_on_the_hash_seed() -> None:
    """Chance is measured with values exchanged at random; strings hash differently in every process."""
    code = (
        "from tests.attacks.people import material; from vgid.attacks.probe import ProbeItem, _shuffled;"
        "print(_shuffled([ProbeItem(row, 0, [[1], [2]]) for row in material(6, 6, facts=5).everything], 'probe/0/0'))"
    )
    other = {**os.environ, "PYTHONHASHSEED": "1"}
    there = subprocess.run([sys.executable, "-c", code], env=other, capture_output=True, text=True, check=True).stdout
    assert json.loads(there) == _shuffled([ProbeItem(row, 0, [[1], [2]]) for row in material(6, 6, facts=5).everything], "probe/0/0")
