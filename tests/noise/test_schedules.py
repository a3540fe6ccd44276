"""The laws of every curve of noise: it falls, its slope is its slope, and its inverse undoes it."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from dllm_lightning.noise import Cosine, Geometric, LogLinear, NoiseSchedule, Polynomial
from tests.laws.parts import COMPLETE, MOVING, SCHEDULES

INSIDE = torch.linspace(0.001, 0.999, 401, dtype=torch.float64)
every = pytest.mark.parametrize("schedule", SCHEDULES, ids=str)


@every
def test_survival_falls_with_time(schedule: NoiseSchedule) -> None:
    fall = schedule.alpha(INSIDE).diff()
    assert (fall == 0).all() if schedule.min_ratio == schedule.max_ratio else (fall < 0).all()


@every
def test_the_mask_ratio_starts_and_ends_at_its_bounds(schedule: NoiseSchedule) -> None:
    start, end = schedule.mask_ratio(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
    span = schedule.max_ratio - schedule.min_ratio
    short = math.exp(-schedule.sigma_max) if isinstance(schedule, Geometric) else 0.0
    early = -math.expm1(-schedule.sigma_min) if isinstance(schedule, Geometric) else 0.0
    assert start == pytest.approx(schedule.min_ratio + early * span, abs=1e-15)
    assert end == pytest.approx(schedule.max_ratio - short * span, abs=1e-15)


@every
def test_what_survives_and_what_is_masked_sum_to_one(schedule: NoiseSchedule) -> None:
    assert_close(schedule.alpha(INSIDE) + schedule.mask_ratio(INSIDE), torch.ones_like(INSIDE))


@every
def test_alpha_prime_is_the_slope_that_autograd_finds(schedule: NoiseSchedule) -> None:
    t = INSIDE.clone().requires_grad_()
    alpha = schedule.alpha(t)
    slope = torch.autograd.grad(alpha.sum(), t)[0] if alpha.requires_grad else torch.zeros_like(t)
    assert_close(schedule.alpha_prime(INSIDE), slope, rtol=1e-12, atol=1e-14)
    assert (schedule.alpha_prime(INSIDE) <= 0).all()


@pytest.mark.parametrize("schedule", MOVING, ids=str)
def test_time_of_inverts_alpha(schedule: NoiseSchedule) -> None:
    assert_close(schedule.time_of(schedule.alpha(INSIDE)), INSIDE, rtol=1e-8, atol=1e-8)
    alpha = torch.linspace(1 - schedule.max_ratio, 1 - schedule.min_ratio, 99, dtype=torch.float64)[1:-1]
    reached = (alpha < schedule.alpha(torch.zeros_like(alpha))) & (alpha > schedule.alpha(torch.ones_like(alpha)))
    assert_close(schedule.alpha(schedule.time_of(alpha))[reached], alpha[reached], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("schedule", MOVING, ids=str)
def test_a_share_outside_the_curve_belongs_to_the_nearer_end(schedule: NoiseSchedule) -> None:
    ends = schedule.time_of(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert_close(ends, torch.tensor([1.0, 0.0], dtype=torch.float64))


def test_a_fixed_ratio_has_no_time_to_invert_to() -> None:
    fixed = LogLinear(min_ratio=0.15, max_ratio=0.15)
    with pytest.raises(ValueError, match=r"fixed at 0\.15"):
        fixed.time_of(torch.tensor([0.85]))


@every
@pytest.mark.parametrize("t", [1e-6, 1e-4, 1e-2, 0.3])
def test_small_mask_ratios_keep_the_digits_of_float32(schedule: NoiseSchedule, t: float) -> None:
    """1 - alpha computed as such would be 6 % wrong at t = 1e-6."""
    coarse = schedule.mask_ratio(torch.tensor([t])).double()
    fine = schedule.mask_ratio(torch.tensor([t]).double())
    assert_close(coarse, fine, rtol=2e-6, atol=0.0)


def test_the_curves_are_the_ones_of_the_papers() -> None:
    t = torch.tensor([0.04, 0.25, 0.81], dtype=torch.float64)
    written = {
        LogLinear(): [1 - 0.04, 1 - 0.25, 1 - 0.81],
        Cosine(): [1 - math.cos(math.pi / 2 * (1 - x)) for x in t.tolist()],
        Polynomial(power=2.0): [1 - 0.0016, 1 - 0.0625, 1 - 0.6561],
        Polynomial(power=0.5): [1 - 0.2, 1 - 0.5, 1 - 0.9],
        Geometric(sigma_min=1e-3, sigma_max=1.0): [math.exp(-(1e-3 ** (1 - x))) for x in t.tolist()],
        LogLinear(0.15, 0.99): [0.85 - 0.84 * x for x in t.tolist()],
    }
    for schedule, alpha in written.items():
        assert_close(schedule.alpha(t), torch.tensor(alpha, dtype=torch.float64))


def test_a_complete_curve_runs_from_clean_text_to_noise() -> None:
    assert {LogLinear(), Cosine(), Polynomial(), Geometric(), LogLinear(max_ratio=0.999)} <= set(COMPLETE)
    for partial in (LogLinear(0.15, 0.99), LogLinear(max_ratio=0.9), LogLinear(0.01, 1.0), Geometric(sigma_max=1.0)):
        assert not partial.complete
        assert partial.unbounded().complete == (not isinstance(partial, Geometric))
        assert type(partial.unbounded()) is type(partial)


@pytest.mark.parametrize("bounds", [(-0.1, 1.0), (0.0, 1.1), (0.6, 0.5), (0.0, 0.0), (math.nan, 1.0)])
def test_bounds_that_are_no_mask_ratios_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"noise\.min_ratio=.*noise\.max_ratio=.*Choose 0 <= min_ratio"):
        LogLinear(*bounds)


def test_curves_that_do_not_rise_are_refused() -> None:
    with pytest.raises(ValueError, match=r"noise\.power=0\.0.*above 0"):
        Polynomial(power=0.0)
    with pytest.raises(ValueError, match=r"noise\.sigma_min=2\.0 and noise\.sigma_max=1\.0.*0 < sigma_min < sigma_max"):
        Geometric(sigma_min=2.0, sigma_max=1.0)


def test_a_grid_walks_from_noise_to_clean_in_equal_steps() -> None:
    assert LogLinear().grid(4).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert LogLinear().grid(1).tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match="at least one step, not 0"):
        LogLinear().grid(0)
