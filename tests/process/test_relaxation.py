"""The integral that turns Gaussian noise into uniform noise, against closed forms, other quadratures and chance."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dllm_lightning.noise import LogLinear
from dllm_lightning.process import Gaussian, Relaxed, UniformDiffusion
from dllm_lightning.process.relaxation import _inverse
from tests.laws.odds import SURPRISING
from tests.laws.parts import seeded, vocabulary

SIZES = (2, 3, 11, 64, 1024, 50_368, 262_144)
every_size = pytest.mark.parametrize("classes", SIZES)
GAMMA = torch.linspace(-5.0, 17.5, 226, dtype=torch.float64)
ALPHA = torch.cat([torch.logspace(-4, -0.31, 60), 1 - torch.logspace(-4, -0.31, 60)]).double()


def panels(count: int = 300) -> tuple[Tensor, Tensor]:
    """Points and weights of Gauss and Legendre on `count` panels of [-14, 34], 20 in each."""
    points, weights = (torch.from_numpy(column) for column in np.polynomial.legendre.leggauss(20))
    half = 24.0 / count
    centres = -14.0 + half * (2 * torch.arange(count, dtype=torch.float64) + 1)
    return (centres[:, None] + half * points).flatten(), (half * weights).expand(count, -1).flatten()


def written_out(classes: int, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """P and dP / dgamma as they stand in the paper: ∫ phi(y - mu) Phi(y)^(K-1) dy, and its derivative inside."""
    y, weight = panels()
    mu = torch.exp(-gamma / 2)[:, None]
    others = torch.exp((classes - 1) * torch.special.log_ndtr(y))
    density = torch.exp(-((y - mu) ** 2) / 2) / math.sqrt(2 * math.pi) * others * weight
    return density.sum(1), (-mu / 2 * (y - mu) * density).sum(1)


@every_size
def test_alpha_and_its_slope_are_the_integrals_of_the_paper(classes: int) -> None:
    gaussian, spread = Gaussian(classes), classes / (classes - 1)
    p, slope = written_out(classes, GAMMA)
    assert_close(gaussian.alpha(GAMMA), (classes * p - 1) / (classes - 1), rtol=0, atol=1e-12)
    assert_close(gaussian.mask_ratio(GAMMA), spread * (1 - p), rtol=0, atol=1e-12)
    assert_close(gaussian.alpha_prime(GAMMA), spread * slope, rtol=0, atol=1e-12)


def test_with_two_classes_alpha_is_an_error_function() -> None:
    """x wins if the difference of two normals stays below mu: 2 Phi(mu / √2) - 1. All digits of small numbers too."""
    gaussian, mu = Gaussian(2), torch.exp(-GAMMA / 2)
    assert_close(gaussian.alpha(GAMMA), torch.erf(mu / 2), rtol=1e-11, atol=0)
    noisy = mu < 8
    assert_close(gaussian.mask_ratio(GAMMA)[noisy], torch.erfc(mu / 2)[noisy], rtol=1e-9, atol=0)
    slope = -mu / 2 * torch.exp(-(mu**2) / 4) / math.sqrt(math.pi)
    assert_close(gaussian.alpha_prime(GAMMA), slope, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("classes", [2, 5, 40])
def test_alpha_is_how_often_the_largest_number_stays_where_it_was(classes: int) -> None:
    n, generator = 100_000, seeded(classes)
    for gamma in (-2.0, -0.5, 1.0):
        gamma_t = torch.tensor(gamma, dtype=torch.float64)
        alpha_tilde, sigma_tilde = torch.sigmoid(-gamma_t).sqrt(), torch.sigmoid(gamma_t).sqrt()
        numbers = sigma_tilde * torch.randn(n, classes, generator=generator)
        numbers[:, 0] += alpha_tilde
        kept = (numbers.argmax(1) == 0).double().mean().item()
        alpha = Gaussian(classes).alpha(gamma_t).item()
        p = alpha + (1 - alpha) / classes
        assert abs(kept - p) < SURPRISING * math.sqrt(p * (1 - p) / n)


def test_signal_beyond_all_noise_keeps_everything() -> None:
    gaussian, far = Gaussian(50_368), torch.tensor([-1000.0, -20.0, -7.0], dtype=torch.float64)
    assert gaussian.alpha(far).tolist() == pytest.approx([1.0] * 3, abs=1e-14)
    assert gaussian.mask_ratio(far).abs().max() < 1e-38
    assert gaussian.alpha_prime(far).abs().max() < 1e-38


@every_size
def test_gamma_inverts_alpha_within_a_ten_billionth(classes: int) -> None:
    gaussian = Gaussian(classes)
    assert_close(gaussian.alpha(gaussian.gamma(ALPHA)), ALPHA, rtol=0, atol=1e-10)
    alpha = gaussian.alpha(GAMMA)
    known = (alpha > 1e-4) & (alpha < 1 - 1e-4)
    assert known.sum() > 40
    assert_close(gaussian.gamma(alpha)[known], GAMMA[known], rtol=0, atol=1e-10)


@every_size
def test_gamma_falls_all_the_way_from_one_infinity_to_the_other(classes: int) -> None:
    alpha = torch.tensor([0.0, 1e-30, 1e-12, 1e-7, 1e-5, 0.5, 1 - 1e-5, 1 - 1e-12, 1 - 1e-16, 1.0], dtype=torch.float64)
    gamma = Gaussian(classes).gamma(alpha)
    assert gamma[0] == math.inf and gamma[-1] == -math.inf
    assert (gamma.diff() < 0).all()


def test_the_range_of_gamma_belongs_to_the_vocabulary() -> None:
    """alpha from 0.95 to 0.05; the published -3.5 to -1.75 was for 30,522 tokens, and fits those alone."""
    known = {
        64: (-2.853, 0.755),
        1024: (-3.219, -0.841),
        30_522: (-3.528, -1.761),
        50_257: (-3.565, -1.855),
        50_368: (-3.565, -1.856),
        128_256: (-3.632, -2.016),
    }
    for classes, (start, end) in known.items():
        schedule = Relaxed(classes=classes)
        assert schedule.gamma(torch.tensor([0.0, 1.0])).tolist() == pytest.approx([start, end], abs=6e-4)
        assert schedule.alpha(torch.tensor([0.0, 1.0])).tolist() == pytest.approx([0.95, 0.05])


@every_size
@pytest.mark.parametrize("bounds", [(0.05, 0.95), (1e-4, 1 - 1e-4), (0.3, 0.31)])
def test_the_schedule_is_the_integral_along_a_straight_line_of_gamma(classes: int, bounds: tuple[float, float]) -> None:
    schedule, gaussian = Relaxed(*bounds, classes=classes), Gaussian(classes)
    t = torch.linspace(0, 1, 301, dtype=torch.float64)
    gamma = schedule.gamma(t)
    assert_close(gamma.diff(), gamma.diff().mean().expand(300), rtol=1e-9, atol=0)
    assert_close(schedule.alpha(t), gaussian.alpha(gamma), rtol=0, atol=1e-10)
    assert_close(schedule.alpha_prime(t), gaussian.alpha_prime(gamma) * (gamma[-1] - gamma[0]), rtol=0, atol=1e-10)


def test_what_comes_in_float32_is_reckoned_in_float64() -> None:
    schedule, t = Relaxed(classes=50_368), torch.rand(4, 8, generator=seeded(0))
    for curve in (schedule.alpha, schedule.alpha_prime, schedule.gamma, schedule.mask_ratio, schedule.shape):
        coarse, fine = curve(t), curve(t.double())
        assert coarse.dtype == torch.float32 and fine.dtype == torch.float64
        assert_close(coarse, fine.float(), rtol=3e-7, atol=1e-7)


def test_noise_weights_of_the_original_are_a_range_of_gamma() -> None:
    """(1 - w) e_x + w epsilon: how much survives at a weight depends on the size of the vocabulary."""
    weight = torch.tensor([0.145, 0.20, 0.25, 0.284, 0.30, 0.40, 0.50], dtype=torch.float64)
    gamma = 2 * torch.log(weight / (1 - weight))
    small, large = [1.000, 0.991, 0.942, 0.879, 0.844, 0.602, 0.403], [0.946, 0.413, 0.117, 0.049, 0.033, 0.004, 0.001]
    assert Gaussian(4).alpha(gamma).tolist() == pytest.approx(small, abs=1e-3)
    assert Gaussian(50_368).alpha(gamma).tolist() == pytest.approx(large, abs=1e-3)

    schedule = Relaxed.of_weights(50_368, 0.25, 0.5)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert_close(schedule.gamma(ends), gamma[[2, 6]], rtol=0, atol=1e-9)
    assert schedule.alpha(ends).tolist() == pytest.approx([0.117, 0.0008], abs=4e-4)


def test_the_first_use_takes_less_than_a_second() -> None:
    _inverse.cache_clear()
    start = time.process_time()
    Relaxed(classes=262_144).alpha_prime(torch.tensor([0.5]))
    assert time.process_time() - start < 1.0


def test_validation_measures_on_a_curve_that_ends_in_noise() -> None:
    process = UniformDiffusion(vocabulary(13), Relaxed(classes=11))
    assert "from 5% to 95%" in (process.why_no_bound or "")
    assert process.plain.schedule == LogLinear()


@pytest.mark.parametrize("bounds", [(0.0, 0.95), (0.05, 1.0), (0.5, 0.5), (0.6, 0.5), (math.nan, 0.5)])
def test_ends_that_a_gaussian_never_reaches_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"min_ratio=.* and max_ratio=.*choose 0 < min_ratio < max_ratio < 1"):
        Relaxed(*bounds, classes=11)


def test_other_impossible_noise_is_refused() -> None:
    with pytest.raises(ValueError, match=r"low=0\.5 and high=0\.25.*choose 0 < low < high < 1"):
        Relaxed.of_weights(11, 0.5, 0.25)
    with pytest.raises(ValueError, match="classes=1 leaves nothing"):
        Relaxed(classes=1)
