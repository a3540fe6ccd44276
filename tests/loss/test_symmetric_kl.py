"""Symmetric divergences against their definitions, written with one-hot vectors over all states."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch.testing import assert_close

from dllm_lightning.loss import Elbo, SymmetricKL
from dllm_lightning.loss.symmetric_kl import Form, ViewScale
from dllm_lightning.noise import Cosine, LogLinear, NoiseSchedule
from dllm_lightning.process import Gaussian, Relaxed, UniformDiffusion
from dllm_lightning.types import Slots, Vocab
from tests.laws.parts import seeded

K = 11
VOCAB = Vocab(
    13, 12, mask_id=11, pad_id=0, eos_id=1, noise_ids=torch.arange(0, 11)
)  # 11 states, and two ids that are none
SCHEDULES = [LogLinear(), Cosine(), LogLinear(0.05, 0.95), Relaxed(classes=K)]
every = pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
X0, X_T = torch.tensor(list(itertools.product(range(K), range(K)))).T
T = torch.rand(K * K, generator=seeded(0), dtype=torch.float64) * 0.98 + 0.01
SLOTS = Slots(X0, X_T, T, torch.arange(K * K))


def beliefs(process: UniformDiffusion, dtype: torch.dtype = torch.float64) -> Tensor:
    return process.log_p_x0(2 * torch.randn(K * K, 13, generator=seeded(1), dtype=torch.float64).to(dtype), SLOTS)


def jeffreys(p: Tensor, q: Tensor) -> Tensor:
    """KL(p, q) + KL(q, p)."""
    return ((p - q) * (p.log() - q.log())).sum(-1)


def marginals(process: UniformDiffusion, log_p_x0: Tensor) -> tuple[Tensor, Tensor]:
    """q(x_t | x_0) and its mean over the belief."""
    alpha = process.schedule.alpha(T)[:, None]
    return alpha * one_hot(X0, K) + (1 - alpha) / K, alpha * log_p_x0[:, :K].exp() + (1 - alpha) / K


@every
def test_marginal_is_the_divergence_of_the_noised_tokens_both_ways(schedule: NoiseSchedule) -> None:
    process = UniformDiffusion(VOCAB, schedule)
    log_p_x0 = beliefs(process)
    expected = jeffreys(*marginals(process, log_p_x0))
    assert_close(SymmetricKL(form="marginal")(log_p_x0, SLOTS, process), expected, rtol=1e-9, atol=1e-12)


@every
def test_nelbo_is_the_divergence_of_the_ratios_both_ways(schedule: NoiseSchedule) -> None:
    process = UniformDiffusion(VOCAB, schedule)
    log_p_x0 = beliefs(process)
    shown = one_hot(X_T, K)
    r, rho = (q / (q * shown).sum(-1, keepdim=True) for q in marginals(process, log_p_x0))
    weight = -schedule.alpha_prime(T) / (K * schedule.alpha(T))
    expected = weight * jeffreys(r, rho)
    assert_close(SymmetricKL(form="nelbo")(log_p_x0, SLOTS, process), expected, rtol=1e-9, atol=1e-12)


def test_onehot_is_the_divergence_of_the_tokens_with_a_floor_for_log_zero() -> None:
    process = UniformDiffusion(VOCAB, LogLinear())
    log_p_x0 = beliefs(process)
    p, e = log_p_x0[:, :K].exp(), one_hot(X0, K).double()
    for floor in (math.log(1e4), 3.0):
        log_e = torch.where(e > 0, 0.0, -floor)
        expected = -(e * p.log()).sum(-1) + (p * (p.log() - log_e)).sum(-1)
        assert_close(SymmetricKL(form="onehot", floor=floor)(log_p_x0, SLOTS, process), expected)


def test_noise_itself_is_the_floor() -> None:
    """marginal / alpha -> onehot with C = log c, as c -> infinity: what differs is of the order of 1 / (c p)."""
    process = UniformDiffusion(VOCAB, LogLinear())
    log_p_x0 = beliefs(process)
    slots = SLOTS._replace(t=torch.full_like(T, 1e-9))
    c = K * (1 - 1e-9) / 1e-9
    marginal = SymmetricKL(form="marginal")(log_p_x0, slots, process) / (1 - 1e-9)
    assert_close(marginal, SymmetricKL(form="onehot", floor=math.log(c))(log_p_x0, slots, process), rtol=1e-5, atol=0.0)


@every
def test_nelbo_is_never_below_the_bound(schedule: NoiseSchedule) -> None:
    process = UniformDiffusion(VOCAB, schedule)
    log_p_x0 = beliefs(process)
    assert (SymmetricKL(form="nelbo")(log_p_x0, SLOTS, process) > Elbo()(log_p_x0, SLOTS, process)).all()


@pytest.mark.parametrize("form", get_args(Form))
def test_nothing_is_better_than_to_be_sure_of_the_truth(form: Form) -> None:
    """There it is exactly 0, in float32 too, and everywhere else it is more (if C is far above log K)."""
    process, loss = UniformDiffusion(VOCAB, LogLinear()), SymmetricKL(form=form, floor=30.0)
    truth = one_hot(X0, 13).log()
    assert loss(truth.float(), SLOTS, process).abs().max() == 0
    assert loss(beliefs(process), SLOTS, process).min() > 0
    almost = process.log_p_x0(torch.where(truth == 0, 20.0, 0.0), SLOTS)
    assert loss(almost, SLOTS, process).min() > 0 and loss(almost, SLOTS, process).max() < 1e-3


@pytest.mark.parametrize("form", get_args(Form))
@pytest.mark.parametrize("t", [1e-5, 0.01, 0.5, 0.99, 1.0])
def test_float32_has_the_digits_of_float64_at_every_level(form: Form, t: float) -> None:
    """Value and gradient, over 50,000 tokens, for vague beliefs and for sure ones, right and wrong."""
    wide = Vocab(50_368, 50_288, 50_284, pad_id=0, eos_id=1, noise_ids=torch.arange(2, 50_280))
    process, loss = UniformDiffusion(wide, LogLinear()), SymmetricKL(form=form)
    slots = Slots(torch.arange(5, 9), torch.tensor([5, 20, 7, 20]), torch.full((4,), t), torch.arange(4))
    logits = torch.randn(4, 50_368, generator=seeded(0))
    logits[[0, 1, 3], [5, 6, 20]] += 20.0
    leaf, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()
    ours, theirs = (loss(process.log_p_x0(table, slots), slots, process) for table in (leaf, exact))
    assert_close(ours.double(), theirs, rtol=3e-5, atol=1e-12)
    (ours.sum() * 2).backward()
    (theirs.sum() * 2).backward()
    assert leaf.grad is not None and exact.grad is not None
    assert (leaf.grad - exact.grad).abs().max() <= 1e-4 * exact.grad.abs().max() + 1e-9


def by_definition(view: ViewScale, ratio: Tensor, count: int) -> Tensor:
    alpha = 1 - ratio
    if (
        view == "literal"
    ):  # noise that came as (1 - w) e_x + w epsilon has signal to noise ((1 - w) / w)^2 = exp(-gamma)
        root = torch.exp(Gaussian(count).gamma(alpha) / 2)
        w = root / (1 + root)
        return w / (count * (1 - w) + w)
    return {"kappa": 1 - alpha, "inverse": count * alpha}[view] / (count * alpha + 1 - alpha)


@pytest.mark.parametrize("schedule", [LogLinear(), Relaxed(classes=K)], ids=str)
@pytest.mark.parametrize("view", ["literal", "kappa", "inverse"])
def test_a_view_scale_weighs_the_levels_and_is_one_on_average(view: ViewScale, schedule: NoiseSchedule) -> None:
    process = UniformDiffusion(VOCAB, schedule)
    t = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    slots = Slots(*(torch.zeros(4000, dtype=torch.long) for _ in range(2)), t, torch.arange(4000))
    log_p_x0 = beliefs(process)[:1].expand(4000, 13)
    plain = SymmetricKL(form="onehot")(log_p_x0, slots, process)
    scaled = SymmetricKL(form="onehot", view_scale=view)(log_p_x0, slots, process)
    scale = by_definition(view, schedule.mask_ratio(t), K)
    assert_close(scaled / plain, scale / scale.mean(), rtol=1e-5, atol=1e-9)
    assert (scaled / plain).mean().item() == pytest.approx(1, rel=1e-5)
    assert set(get_args(ViewScale)) == {"none", "literal", "kappa", "inverse"}


def test_the_mean_scale_is_right_where_it_lives_in_the_last_instant() -> None:
    """K = 50,000 on the straight line: the mean of t / (K (1 - t) + t) is (K log K - K + 1) / (K - 1)^2."""
    count = 50_000
    vocab = Vocab(count, count, count - 1, pad_id=0, eos_id=1, noise_ids=torch.arange(0, count))
    process = UniformDiffusion(vocab, LogLinear())
    assert process.count == count
    slots = Slots(*(torch.zeros(1, dtype=torch.long) for _ in range(2)), torch.tensor([0.5]), torch.arange(1))
    belief = process.log_p_x0(torch.randn(1, count, generator=seeded(0)), slots)
    ratio = SymmetricKL(view_scale="kappa")(belief, slots, process) / SymmetricKL()(belief, slots, process)
    mean = (count * math.log(count) - count + 1) / (count - 1) ** 2
    assert ratio.item() == pytest.approx(0.5 / (count / 2 + 0.5) / mean, rel=1e-3)
