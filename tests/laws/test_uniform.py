"""Uniform noise by its definition: corruption, the way back by Bayes, a bound that is tight for an ideal network."""

from __future__ import annotations

import itertools
import math
from functools import cache

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch.testing import assert_close

from dllm_lightning.noise import Cosine, LogLinear, NoiseSchedule
from dllm_lightning.process import PerPlace, Random, Relaxed, UniformDiffusion
from dllm_lightning.types import Slots, Vocab
from tests.laws.enumeration import integrate
from tests.laws.odds import SURPRISING, chi_square
from tests.laws.parts import COMPLETE, mixed_batch, seeded

K = 11
STATES = Vocab(K + 2, K + 1, mask_id=K, pad_id=K, eos_id=0, noise_ids=torch.arange(1, K))
"""Ids 0 to 10 are states, 11 is mask and padding, and no token belongs to 12."""


def process_of(schedule: NoiseSchedule | None = None) -> UniformDiffusion:
    return UniformDiffusion(STATES, schedule or LogLinear())


def kernel(alpha: Tensor) -> Tensor:
    """(N 11 11): the chance to go from each state to each, when a share alpha survives."""
    return alpha[:, None, None] * torch.eye(K, dtype=torch.float64) + (1 - alpha[:, None, None]) / K


def beliefs(n: int, seed: int = 0) -> tuple[Slots, Tensor]:
    """Random slots, a third of them unchanged, and arbitrary beliefs over the states."""
    generator = seeded(seed)
    t = 0.05 + 0.9 * torch.rand(n, generator=generator, dtype=torch.float64)
    x0, other = (torch.randint(0, K, (n,), generator=generator) for _ in range(2))
    x_t = torch.where(torch.rand(n, generator=generator) < 0.3, x0, other)
    return Slots(x0, x_t, t, torch.arange(n)), 2 * torch.randn(n, K + 2, generator=generator, dtype=torch.float64)


def test_the_posterior_is_bayes_rule_with_the_belief_in_place_of_the_clean_token() -> None:
    """q(x_s | x_t, x_0) = q(x_t | x_s) q(x_s | x_0) / q(x_t | x_0), each from its own matrix."""
    process, (slots, logits) = process_of(), beliefs(200)
    alpha_t = process.schedule.alpha(slots.t)
    alpha_s = process.schedule.alpha(slots.t * 0.6)
    p = process.log_p_x0(logits, slots).exp()
    forward = kernel(alpha_t / alpha_s)  # from s to t
    joint = forward.gather(2, slots.x_t[:, None, None].expand(-1, K, 1)).squeeze(2)
    joint = joint * (kernel(alpha_s) * p[:, :K, None]).sum(1)
    expected = joint / joint.sum(1, keepdim=True)
    found = process.posterior(p, slots.x_t, alpha_s, alpha_t)
    assert_close(found[:, :K], expected, rtol=1e-10, atol=1e-14)
    assert (found[:, K:] == 0).all()


def test_the_whole_way_back_multiplies_the_cavity_by_the_likelihood_of_what_is_shown() -> None:
    """At alpha_s = 1: proportional to p_j (1 + c 1[j = z]) with c = K alpha / (1 - alpha)."""
    process, (slots, logits) = process_of(), beliefs(100)
    alpha = process.schedule.alpha(slots.t)
    p = process.log_p_x0(logits, slots).exp()
    expected = p * (1 + (K * alpha / (1 - alpha))[:, None] * one_hot(slots.x_t, K + 2))
    found = process.posterior(p, slots.x_t, torch.ones_like(alpha), alpha)
    assert_close(found, expected / expected.sum(1, keepdim=True), rtol=1e-10, atol=1e-14)


def test_from_pure_noise_the_way_back_is_the_marginal() -> None:
    process, (slots, logits) = process_of(), beliefs(50)
    p, nothing = process.log_p_x0(logits, slots).exp(), torch.zeros(50, dtype=torch.float64)
    half = torch.full((50,), 0.5, dtype=torch.float64)
    found = process.posterior(p, slots.x_t, half, nothing)
    assert_close(found, 0.5 * p + 0.5 * process.stationary, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("schedule", [*COMPLETE, Relaxed(classes=K)], ids=str)
def test_the_bound_is_the_rate_at_which_beliefs_diverge(schedule: NoiseSchedule) -> None:
    """nelbo = lim KL(q(x_s | x_t, x_0) || p(x_s | x_t)) / (t - s), at K = 11 in float64."""
    process, (slots, logits), dt = process_of(schedule), beliefs(64), 1e-7
    log_p_x0 = process.log_p_x0(logits, slots)
    alpha_s, alpha_t = schedule.alpha(slots.t - dt), schedule.alpha(slots.t)
    q = process.posterior(one_hot(slots.x0, K + 2).double(), slots.x_t, alpha_s, alpha_t)[:, :K]
    p = process.posterior(log_p_x0.exp(), slots.x_t, alpha_s, alpha_t)[:, :K]
    # q log(q/p) - q + p is the same sum, and does not lose the digits that the small rows have
    ratio = p / q
    rate = (q * (ratio - 1 - ratio.log())).sum(-1) / dt
    assert_close(process.nelbo(log_p_x0, slots), rate, rtol=1e-4, atol=1e-6)
    assert_close(process.nelbo_of_logits(logits.clone(), slots), rate, rtol=1e-4, atol=1e-6)


@cache
def language(size: int, length: int) -> tuple[Tensor, Tensor]:
    """All texts (M L), and an uneven probability for each."""
    texts = torch.tensor(list(itertools.product(range(size), repeat=length)))
    weight = torch.randn(len(texts), generator=seeded(3), dtype=torch.float64).mul(1.5).exp()
    return texts, weight / weight.sum()


def ideal_bound(t: float, size: int, length: int, schedule: NoiseSchedule) -> Tensor:
    """The bound's integrand at t for the network that knows each slot's law given all others' states, but its own."""
    texts, probability = language(size, length)
    vocab = Vocab(size + 1, size + 1, mask_id=size, pad_id=size, eos_id=0, noise_ids=torch.arange(1, size))
    process = UniformDiffusion(vocab, schedule)
    alpha = schedule.alpha(torch.tensor(t, dtype=torch.float64))
    same = texts[:, None, :] == texts[None, :, :]  # (x0, z, slot)
    shown = alpha * same + (1 - alpha) / size
    chance = probability[:, None] * shown.prod(-1)
    total = torch.zeros((), dtype=torch.float64)
    for slot in range(length):
        others = torch.cat([shown[..., :slot], shown[..., slot + 1 :]], dim=-1).prod(-1) * probability[:, None]
        cavity = others.T @ one_hot(texts[:, slot], size + 1).double()
        log_p = (cavity / cavity.sum(1, keepdim=True)).log().repeat(len(texts), 1)
        x0 = texts[:, slot].repeat_interleave(len(texts))
        x_t = texts[:, slot].repeat(len(texts))
        slots = Slots(x0, x_t, torch.full(x0.shape, t, dtype=torch.float64), torch.arange(len(x0)))
        total = total + (chance.flatten() * process.nelbo(log_p, slots)).sum()
    return total


@pytest.mark.parametrize("schedule", [LogLinear(), Cosine()], ids=str)
def test_for_an_ideal_network_the_bound_is_the_entropy(schedule: NoiseSchedule) -> None:
    """Ideal is the cavity: each slot's law given the states of all others. Then nothing is lost, on any schedule."""
    size, length = 4, 3
    _, probability = language(size, length)
    entropy = -(probability * probability.log()).sum()
    assert 1.0 < entropy < 0.95 * length * math.log(size)
    bound = integrate(lambda t: ideal_bound(t, size, length, schedule), nodes=40)
    assert_close(bound, entropy, rtol=1e-3, atol=0)


def test_a_network_that_also_counts_its_own_slot_pays_for_it() -> None:
    """Why the cavity: the law of a slot given all states, its own too, is used twice, and the bound is no entropy."""
    slots = Slots(torch.tensor([2]), torch.tensor([5]), torch.tensor([0.5], dtype=torch.float64), torch.tensor([0]))
    process = process_of()
    cavity = torch.full((1, K + 2), 0.01, dtype=torch.float64)
    cavity[0, 2] = 1 - 0.01 * (K - 1)
    cavity[0, K:] = 0
    alpha = process.schedule.alpha(slots.t)
    counted = process.posterior(cavity, slots.x_t, torch.ones_like(alpha), alpha)
    assert process.nelbo(counted.log(), slots) > process.nelbo(cavity.log(), slots)


def test_each_slot_flips_as_often_as_it_should_and_lands_anywhere() -> None:
    """P(x_t = x_0) = alpha + (1 - alpha)/K, and every other state is as likely as the next."""
    process, generator = process_of(), seeded(0)
    canvas = mixed_batch(STATES, generator, rows=4000, length=16)
    t = torch.full(canvas.ids.shape, 0.4)
    batch = process.corrupt(canvas, t, Random(generator))
    change = (batch.x_t - canvas.ids)[batch.asked] % K
    expected = torch.full((K,), 0.4 / K).index_fill(0, torch.tensor(0), 0.6 + 0.4 / K) * len(change)
    assert chi_square(torch.bincount(change, minlength=K), expected) < SURPRISING


def test_noise_touches_answers_only_and_uses_states_only() -> None:
    process, generator = process_of(), seeded(1)
    canvas = mixed_batch(STATES, generator)
    draws = PerPlace(0, 0, 0, len(canvas.ids))
    for x in (process.corrupt(canvas, torch.ones(canvas.ids.shape), draws).x_t, process.prior(canvas, generator)):
        assert torch.equal(x[~canvas.editable], canvas.ids[~canvas.editable])
        assert process.is_state(x[canvas.editable]).all()
    assert torch.equal(process.asks(canvas.ids, canvas.editable), canvas.editable)
    assert process.states.tolist() == list(range(K)) and process.never.tolist() == [K, K + 1]


def test_a_schedule_that_stops_short_has_no_bound_and_a_plain_process_that_has() -> None:
    short = process_of(LogLinear(0.05, 0.95))
    assert short.why_no_bound == "its noise runs from 5% to 95% of the text, not from none to all of it"
    assert short.plain == process_of() and short.plain.why_no_bound is None
    relaxed = process_of(Relaxed(classes=K))
    assert relaxed.why_no_bound is not None and relaxed.plain == process_of()
