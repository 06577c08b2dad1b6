"""Perturbations: what each does, and that nothing but the seed decides it."""

import math

import pytest
import torch

from vgid.perturbation import NoiseConfig, NoiseKind, perturb

KINDS: tuple[NoiseKind, ...] = ("uniform", "gaussian", "blur", "shuffle", "mean", "diffusion")


def pictures(count: int = 3, side: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("space", ["pixel", "normalised"])
def test_seed_alone_decides(kind: NoiseKind, space: str) -> None:
    x, config = pictures(), NoiseConfig(kind=kind, strength=0.7, space=space)  # type: ignore[arg-type]
    out = perturb(x, config, [5, 6, 7])
    assert out.shape == x.shape and not torch.equal(out, x)
    # Order and neighbours change nothing.
    assert torch.equal(perturb(x.flip(0), config, [7, 6, 5]).flip(0), out)
    assert torch.equal(perturb(x[1:2], config, [6])[0], out[1])
    if kind not in ("blur", "mean"):
        assert not torch.equal(perturb(x, config, [8, 9, 10]), out)
    if space == "pixel":
        assert out.min() >= 0.0 and out.max() <= 1.0


def test_none_leaves_pictures_alone() -> None:
    assert torch.equal(perturb(pictures(), NoiseConfig(kind="none"), [0, 1, 2]), pictures())


def test_uniform_forgets_the_picture() -> None:
    config = NoiseConfig(kind="uniform")
    assert torch.equal(perturb(pictures(), config, [1, 2, 3]), perturb(torch.zeros(3, 3, 32, 32), config, [1, 2, 3]))


def test_mean_is_the_mean_colour() -> None:
    x = torch.tensor([[[[0.0, 1.0]], [[0.5, 0.5]], [[0.2, 0.4]]]])
    out = perturb(x, NoiseConfig(kind="mean"), [0])
    assert out[0, :, 0, 0].tolist() == pytest.approx([0.5, 0.5, 0.3]) and torch.equal(out[..., 0], out[..., 1])


def test_shuffle_moves_whole_patches_and_keeps_the_rest() -> None:
    x = pictures(1, 18)  # 2 x 2 patches of 8, and a rim of 2 pixels
    out = perturb(x, NoiseConfig(kind="shuffle", patch=8), [3])
    before = {tuple(x[0, :, i : i + 8, j : j + 8].flatten().tolist()) for i in (0, 8) for j in (0, 8)}
    after = {tuple(out[0, :, i : i + 8, j : j + 8].flatten().tolist()) for i in (0, 8) for j in (0, 8)}
    assert before == after and torch.equal(x[..., 16:, :], out[..., 16:, :]) and torch.equal(x[..., 16:], out[..., 16:])


def test_gaussian_of_no_strength_and_of_full_strength() -> None:
    x = pictures()
    assert torch.equal(perturb(x, NoiseConfig(kind="gaussian", strength=0.0), [1, 2, 3]), x)
    full = NoiseConfig(kind="gaussian", strength=1.0)
    assert torch.equal(perturb(x, full, [1, 2, 3]), perturb(torch.zeros_like(x), full, [1, 2, 3]))


def test_blur_keeps_a_flat_picture_and_flattens_a_point() -> None:
    flat = torch.full((1, 3, 16, 16), 0.3)
    config = NoiseConfig(kind="blur", strength=0.5)
    assert torch.allclose(perturb(flat, config, [0]), flat, atol=1e-6)
    point = torch.zeros(1, 3, 16, 16)
    point[..., 8, 8] = 1.0
    assert perturb(point, config, [0]).max() < 0.1


def test_diffusion_keeps_variance() -> None:
    # x_t = sqrt(a) x + sqrt(1 - a) e, with a = prod(1 - beta): for x of variance 1 the variance stays 1.
    x = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    for strength in (0.0, 0.3, 1.0):
        assert perturb(x, NoiseConfig(kind="diffusion", strength=strength), [4]).var().item() == pytest.approx(1.0, abs=0.05)
    # After one of a thousand steps a = 1 - 1e-4.
    one = perturb(torch.ones(1, 3, 4, 4), NoiseConfig(kind="diffusion", strength=0.001), [4])
    e = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(4))
    assert torch.allclose(one[0], math.sqrt(1 - 1e-4) + math.sqrt(1e-4) * e, atol=1e-6)


def test_seeds_must_match_pictures() -> None:
    with pytest.raises(ValueError, match="one seed per image, got 1 for 3"):
        perturb(pictures(), NoiseConfig(), [1])
