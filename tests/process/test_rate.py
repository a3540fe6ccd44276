"""The bound of uniform noise: its definition, its gradient, and every digit that float32 has."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch.testing import assert_close

from dllm_lightning.noise import Cosine, LogLinear, NoiseSchedule, Polynomial
from dllm_lightning.process import UniformDiffusion, blocks
from dllm_lightning.process.rate import excess, log_one_plus, rate
from dllm_lightning.process.rate_function import Rate
from dllm_lightning.types import Slots, Vocab
from tests.laws.parts import SCHEDULES, seeded, vocabulary

VOCAB = vocabulary(11, first_noise=2)  # 8 states: token 0 is none, and the ending token 1 is one
PROCESS = UniformDiffusion(VOCAB, LogLinear())
STATES = [1, 2, 3, 4, 5, 6, 7, 8]
K = 50_368
WIDE = Vocab(K, K - 80, K - 84, pad_id=0, eos_id=1, noise_ids=torch.arange(2, K - 90))


def every_pair(process: UniformDiffusion = PROCESS, seed: int = 0) -> tuple[Tensor, Slots]:
    """Logits in float64 for each of the 64 pairs of a clean and a shown state, at times all over."""
    x0, x_t = torch.tensor(list(itertools.product(STATES, STATES))).T
    t = torch.rand(64, generator=seeded(seed), dtype=torch.float64) * 0.98 + 0.01
    logits = 2 * torch.randn(64, 11, generator=seeded(seed + 1), dtype=torch.float64)
    return logits, Slots(x0, x_t, t, torch.arange(64))


def defined(p_x0: Tensor, slots: Slots, schedule: NoiseSchedule) -> Tensor:
    """-alpha'/(K alpha) · sum_j [rho_j - r_j + r_j log(r_j / rho_j)], from one-hot vectors over the 8 states."""
    alpha = schedule.alpha(slots.t)[:, None]
    x0, x_t = one_hot(slots.x0, 11)[:, STATES], one_hot(slots.x_t, 11)[:, STATES]
    q, believed = alpha * x0 + (1 - alpha) / 8, alpha * p_x0[:, STATES] + (1 - alpha) / 8
    r, rho = q / (q * x_t).sum(-1, keepdim=True), believed / (believed * x_t).sum(-1, keepdim=True)
    inside = rho - r + r * (r / rho).log()
    return -schedule.alpha_prime(slots.t) / (8 * alpha.squeeze(1)) * inside.sum(-1)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_the_rate_is_the_generalised_divergence_of_the_two_ratios(schedule: NoiseSchedule) -> None:
    """On every schedule, of incomplete ones too, where it bounds nothing."""
    process = UniformDiffusion(VOCAB, schedule)
    logits, slots = every_pair(process)
    expected = defined(process.log_p_x0(logits, slots).exp(), slots, schedule)
    assert_close(process.nelbo(process.log_p_x0(logits, slots), slots), expected, rtol=1e-9, atol=1e-12)
    assert_close(process.nelbo_of_logits(logits.clone(), slots), expected, rtol=1e-9, atol=1e-12)


def test_a_belief_may_rule_states_out() -> None:
    """Their ratios under the belief are not 0: noise leads there too."""
    _, slots = every_pair()
    p_x0 = torch.zeros(64, 11, dtype=torch.float64)
    p_x0[:, 3], p_x0[:, 4] = 0.75, 0.25
    assert_close(PROCESS.nelbo(p_x0.log(), slots), defined(p_x0, slots, LogLinear()), rtol=1e-9, atol=1e-12)


def test_the_rate_is_zero_at_the_truth_and_positive_elsewhere() -> None:
    logits, slots = every_pair()
    assert PROCESS.nelbo(one_hot(slots.x0, 11).double().log(), slots).abs().max() == 0
    assert PROCESS.nelbo(PROCESS.log_p_x0(logits, slots), slots).min() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rows", [1, 5, 1000], ids="{} rows at a time".format)
def test_the_gradient_in_closed_form_is_that_of_autograd(
    dtype: torch.dtype, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(blocks.BLOCK, "cpu", 11 * rows)
    exact, slots = every_pair()
    logits, outer = exact.to(dtype), torch.randn(64, generator=seeded(3), dtype=torch.float64)
    whole, ours = logits.clone().double().requires_grad_(), logits.clone().requires_grad_()
    expected = PROCESS.nelbo(PROCESS.log_p_x0(whole, slots), slots)
    nats = PROCESS.nelbo_of_logits(ours, slots)
    assert nats.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    digits = {torch.bfloat16: 1e-2, torch.float32: 1e-5, torch.float64: 1e-9}[dtype]
    assert_close(nats.double(), expected, rtol=min(digits, 1e-5), atol=0.0)
    (outer * expected).sum().backward()
    (outer.to(nats) * nats).sum().backward()
    assert ours.grad is not None and whole.grad is not None and ours.grad.dtype == dtype
    assert_close(ours.grad.double(), whole.grad, rtol=digits, atol=digits)
    assert ours.grad[:, [0, 9, 10]].abs().max() == 0  # no states


class Fresh(torch.autograd.Function):
    """The rate of a copy of the logits, made anew for every way back: gradcheck goes back many times."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, slots: Slots) -> Tensor:
        ctx.save_for_backward(logits)
        ctx.slots = slots
        return PROCESS.nelbo_of_logits(logits.clone(), slots)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        leaf = ctx.saved_tensors[0].clone().requires_grad_()
        with torch.enable_grad():
            nats = PROCESS.nelbo_of_logits(leaf, ctx.slots)
        return torch.autograd.grad(nats, leaf, grad)[0], None


def test_the_gradient_passes_gradcheck() -> None:
    logits, slots = every_pair()
    some = slots.chunk(0, 5)
    assert (some.x0 == some.x_t).any() and (some.x0 != some.x_t).any()
    assert torch.autograd.gradcheck(lambda table: Fresh.apply(table, some), logits[:5].clone().requires_grad_())


def test_logits_of_what_is_no_state_change_nothing() -> None:
    logits, slots = every_pair()
    loud = logits.index_fill(1, PROCESS.never, 50.0)
    assert_close(PROCESS.nelbo_of_logits(loud, slots), PROCESS.nelbo_of_logits(logits.clone(), slots))


def test_the_gradient_lies_where_the_logits_were() -> None:
    logits, slots = every_pair()
    leaf = logits.float().requires_grad_()
    (grad,) = torch.autograd.grad(PROCESS.nelbo_of_logits(leaf, slots).sum(), leaf)
    assert grad.data_ptr() == leaf.data_ptr()


def test_nothing_is_asked_and_nothing_is_said() -> None:
    logits, slots = every_pair()
    leaf = logits[:0].requires_grad_()
    nats = PROCESS.nelbo_of_logits(leaf, slots.chunk(0, 0))
    nats.sum().backward()
    assert nats.shape == (0,) and leaf.grad is not None and leaf.grad.shape == (0, 11)


@pytest.mark.parametrize("schedule", [LogLinear(), Cosine()], ids=str)
def test_pure_noise_costs_nothing_and_has_no_slope(schedule: NoiseSchedule) -> None:
    process = UniformDiffusion(VOCAB, schedule)
    logits, slots = every_pair()
    leaf = logits.float().requires_grad_()
    nats = process.nelbo_of_logits(leaf, slots._replace(t=torch.ones(64)))
    (grad,) = torch.autograd.grad(nats.sum(), leaf)
    assert nats.abs().max() < 1e-6 and grad.abs().max() < 1e-6  # NaN is neither


def kinds_of_belief(scale: float) -> tuple[Tensor, Slots]:
    """Logits (8 K): vague, sure of the truth, sure of what is shown, sure of a third; half of each show the truth."""
    x0, x_t = torch.arange(100, 108), torch.arange(100, 108)
    x_t[1::2] += 1000
    logits = scale * torch.randn(8, K, generator=seeded(0))
    for row, sure in enumerate((None, None, x0, x0, x_t, x_t, 7, 7)):
        if sure is not None:
            logits[row, sure if isinstance(sure, int) else sure[row]] += 25.0
    return logits, Slots(x0, x_t, torch.empty(8), torch.arange(8))


@pytest.mark.parametrize("t", [1e-5, 1e-3, 0.1, 0.5, 0.9, 0.999, 1 - 1e-6])
def test_float32_has_the_digits_of_float64(t: float) -> None:
    """To a relative error of 1e-5 in each slot, for beliefs of every kind over 50,000 tokens."""
    process = UniformDiffusion(WIDE, LogLinear())
    for scale in (0.0, 0.3, 4.0):
        logits, slots = kinds_of_belief(scale)
        slots = slots._replace(t=torch.full((8,), t))
        exact = process.nelbo(process.log_p_x0(logits.double(), slots), slots)
        assert_close(process.nelbo(process.log_p_x0(logits, slots), slots).double(), exact, rtol=1e-5, atol=0.0)
        assert_close(process.nelbo_of_logits(logits, slots).double(), exact, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("t", [1e-5, 1e-4, 1e-3])
def test_noise_so_rare_that_products_of_odds_are_infinite_costs_no_digits(t: float) -> None:
    """A ratio of t^3 makes c 5e16 at t = 1e-4, and (c / K)^4 goes beyond float32."""
    process = UniformDiffusion(WIDE, Polynomial(power=3.0))
    for scale in (0.0, 4.0):
        logits, slots = kinds_of_belief(scale)
        slots = slots._replace(t=torch.full((8,), t))
        exact, leaf = process.nelbo(process.log_p_x0(logits.double(), slots), slots), logits.requires_grad_()
        nats = process.nelbo_of_logits(leaf, slots)
        assert_close(nats.double(), exact, rtol=1e-5, atol=0.0)
        (grad,) = torch.autograd.grad(nats.sum(), leaf)
        assert grad.isfinite().all()


@pytest.mark.parametrize("t", [1e-5, 0.5, 0.999])
def test_the_gradient_keeps_its_digits_too(t: float) -> None:
    """Up to what rounding leaves of the largest slope, however sure the belief is."""
    process = UniformDiffusion(WIDE, LogLinear())
    logits, slots = kinds_of_belief(1.0)
    slots = slots._replace(t=torch.full((8,), t))
    exact, leaf = logits.double().requires_grad_(), logits.requires_grad_()
    process.nelbo_of_logits(exact, slots).sum().backward()
    process.nelbo_of_logits(leaf, slots).sum().backward()
    assert exact.grad is not None and leaf.grad is not None
    error = (leaf.grad.double() - exact.grad).abs().amax(1) / exact.grad.abs().amax(1)
    assert error.max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_excess_over_the_logarithm_has_all_digits(dtype: torch.dtype) -> None:
    """Held against the alternating series where y is small, and against the difference where it is not."""
    tiny = torch.logspace(-12, -3, 40, dtype=torch.float64)
    y = torch.cat([-tiny, tiny])
    exact = y**2 * (1 / 2 - y / 3 + y**2 / 4 - y**3 / 5 + y**4 / 6 - y**5 / 7)
    digits = 3e-6 if dtype == torch.float32 else 1e-11
    ours = excess(y.to(dtype), (1 + y).to(dtype)).double()
    assert_close(ours, exact, rtol=digits, atol=0.0)
    a = torch.cat([torch.linspace(0.02, 0.98, 200, dtype=torch.float64), torch.linspace(1.02, 90, 900).double()])
    assert_close(excess((a - 1).to(dtype), a.to(dtype)).double(), a - 1 - a.log(), rtol=digits * 3, atol=0.0)
    assert_close(log_one_plus((a - 1).to(dtype), a.to(dtype)).double(), a.log(), rtol=digits * 3, atol=0.0)
    assert_close(log_one_plus(y.to(dtype), (1 + y).to(dtype)).double(), torch.log1p(y), rtol=digits, atol=0.0)


def test_both_forms_know_the_states_from_the_process_alone() -> None:
    """`rate` and `Rate` themselves, without the process around them."""
    logits, slots = every_pair()
    expected = PROCESS.nelbo(PROCESS.log_p_x0(logits, slots), slots)
    belief = PROCESS.log_p_x0(logits, slots)
    assert_close(rate(belief, slots, LogLinear(), 8, PROCESS.never), expected)
    assert_close(Rate.apply(logits.clone(), slots, LogLinear(), 8, PROCESS.never), expected)
