"""The reverse step of every process is Bayes' rule."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch.testing import assert_close

from dllm_lightning.noise import NoiseSchedule
from dllm_lightning.process import MaskedDiffusion
from tests.laws.parts import SCHEDULES, seeded, vocabulary

TIMES = [(0.0, 1.0), (0.3, 0.7), (0.7, 0.71), (0.0, 0.01), (0.99, 1.0)]
every = pytest.mark.parametrize("schedule", SCHEDULES, ids=str)


def beliefs(rows: int, process: MaskedDiffusion, seed: int = 0) -> Tensor:
    """Random distributions over the clean tokens, with no mass on the mask."""
    p_x0 = torch.rand(rows, process.vocab.size, generator=seeded(seed), dtype=torch.float64)
    p_x0[:, process.vocab.mask_id :] = 0
    return p_x0 / p_x0.sum(-1, keepdim=True)


def survival(schedule: NoiseSchedule, rows: int, s: float, t: float) -> tuple[Tensor, Tensor]:
    alpha_s, alpha_t = (schedule.alpha(torch.full((rows,), time, dtype=torch.float64)) for time in (s, t))
    return alpha_s, alpha_t


def bayes(x0: int, x_t: int, alpha_s: float, alpha_t: float, mask_id: int, size: int) -> Tensor | None:
    """q(x_s | x_t, x_0) from q(x_t | x_s) q(x_s | x_0), every x_s in turn; None where x_t cannot be."""
    survive = alpha_t / alpha_s if alpha_s > 0 else 1.0
    joint = []
    for x_s in range(size):
        marginal = alpha_s * (x_s == x0) + (1 - alpha_s) * (x_s == mask_id)
        likelihood = survive * (x_t == x_s) + (1 - survive) * (x_t == mask_id)
        joint.append(likelihood * marginal)
    total = torch.tensor(joint, dtype=torch.float64)
    return total / total.sum() if total.sum() > 0 else None


@every
def test_rows_sum_to_one_and_are_probabilities(schedule: NoiseSchedule) -> None:
    process = MaskedDiffusion(vocabulary(11), schedule)
    x_t = torch.arange(10)
    for s, t in TIMES:
        x_s = process.posterior(beliefs(10, process), x_t, *survival(schedule, 10, s, t))
        assert (x_s >= 0).all()
        assert_close(x_s.sum(-1), torch.ones(10, dtype=torch.float64))


@every
@pytest.mark.parametrize("size", [3, 4, 5])
def test_the_posterior_of_a_known_token_is_bayes_rule(schedule: NoiseSchedule, size: int) -> None:
    process = MaskedDiffusion(vocabulary(size), schedule)
    for (s, t), x0, x_t in itertools.product(TIMES, range(size - 2), range(size - 1)):
        alpha_s, alpha_t = survival(schedule, 1, s, t)
        truth = bayes(x0, x_t, alpha_s.item(), alpha_t.item(), size - 2, size)
        if truth is not None:
            known = one_hot(torch.tensor([x0]), size).double()
            assert_close(process.posterior(known, torch.tensor([x_t]), alpha_s, alpha_t)[0], truth)


@every
def test_the_posterior_of_a_belief_is_the_average_over_it(schedule: NoiseSchedule) -> None:
    """Where x_t says nothing about x_0, as a mask does, a belief is a mixture of known tokens."""
    process = MaskedDiffusion(vocabulary(5), schedule)
    p_x0 = beliefs(4, process)
    for s, t in TIMES:
        alpha_s, alpha_t = survival(schedule, 4, s, t)
        average = torch.zeros(4, 5, dtype=torch.float64)
        for x0 in range(3):
            truth = bayes(x0, 3, alpha_s[0].item(), alpha_t[0].item(), 3, 5)
            assert truth is not None
            average += p_x0[:, x0, None] * truth
        assert_close(process.posterior(p_x0, torch.full((4,), 3), alpha_s, alpha_t), average)


@every
def test_what_was_revealed_stays_whatever_is_believed(schedule: NoiseSchedule) -> None:
    process = MaskedDiffusion(vocabulary(5), schedule)
    x_t = torch.tensor([0, 1, 2])
    for s, t in TIMES:
        x_s = process.posterior(beliefs(3, process), x_t, *survival(schedule, 3, s, t))
        assert torch.equal(x_s, one_hot(x_t, 5).double())


@every
def test_two_steps_are_one(schedule: NoiseSchedule) -> None:
    """From t to s through the middle, with x_0 known: the steps of a Markov chain compose."""
    process = MaskedDiffusion(vocabulary(5), schedule)
    known = one_hot(torch.tensor([1]), 5).double()
    mask = torch.tensor([3])
    for s, middle, t in [(0.1, 0.4, 0.9), (0.0, 0.5, 1.0), (0.5, 0.6, 0.7)]:
        (alpha_s, alpha_t), (alpha_m, _) = survival(schedule, 1, s, t), survival(schedule, 1, middle, t)
        first = process.posterior(known, mask, alpha_m, alpha_t)[0]
        second = torch.stack([process.posterior(known, torch.tensor([x]), alpha_s, alpha_m)[0] for x in range(5)])
        assert_close(first @ second, process.posterior(known, mask, alpha_s, alpha_t)[0])


@every
def test_the_last_step_leaves_no_mask(schedule: NoiseSchedule) -> None:
    """From any time to survival for sure."""
    process = MaskedDiffusion(vocabulary(5), schedule)
    p_x0 = beliefs(1, process)
    _, alpha_t = survival(schedule, 1, 0.0, 0.6)
    assert_close(process.posterior(p_x0, torch.tensor([3]), torch.ones_like(alpha_t), alpha_t), p_x0)
