"""The bound is what it claims to be: the rate at which beliefs diverge, and the same on every schedule."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch.testing import assert_close

from dllm_lightning.loss import Elbo
from dllm_lightning.noise import LogLinear, NoiseSchedule
from dllm_lightning.process import Bernoulli, FloorCount, Hiding, MaskedDiffusion, Random, Replace, UniformCount
from dllm_lightning.types import Slots
from tests.laws.enumeration import as_batch, beta_weights, enumerate_corruptions, integrate, log_beliefs, table
from tests.laws.parts import COMPLETE, row, seeded, stack, vocabulary

ELEVEN, FIVE = vocabulary(11), vocabulary(5)
X0 = (2, 0, 1)

every = pytest.mark.parametrize("schedule", COMPLETE, ids=str)


def left_out(schedule: NoiseSchedule) -> float:
    """The share of the path that a nearly complete curve does not walk, at its two ends."""
    start, end = schedule.mask_ratio(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
    return start + 1 - end


@every
def test_the_bound_is_the_rate_at_which_beliefs_diverge(schedule: NoiseSchedule) -> None:
    """nelbo = lim KL(q(x_s | x_t, x_0) || p(x_s | x_t)) / (t - s), at K = 11."""
    process, n, dt = MaskedDiffusion(ELEVEN, schedule), 64, 1e-6
    generator = seeded(0)
    t = 0.05 + 0.9 * torch.rand(n, generator=generator, dtype=torch.float64)
    x0 = torch.randint(0, 9, (n,), generator=generator)
    x_t = torch.where(torch.rand(n, generator=generator) < 0.7, ELEVEN.mask_id, x0)
    slots = Slots(x0, x_t, t, torch.arange(n))
    log_p_x0 = process.log_p_x0(2 * torch.randn(n, 11, generator=generator, dtype=torch.float64), slots)
    alpha_s, alpha_t = schedule.alpha(t - dt), schedule.alpha(t)
    q = process.posterior(one_hot(x0, 11).double(), x_t, alpha_s, alpha_t)
    p = process.posterior(log_p_x0.exp(), x_t, alpha_s, alpha_t)
    rate = torch.where(q > 0, q * (q / p).log(), 0.0).sum(-1) / dt
    assert_close(process.nelbo(log_p_x0, slots), rate, rtol=1e-4, atol=1e-6)


def enumerated_bound(process: MaskedDiffusion, logits: Tensor, per: str = "batch") -> Tensor:
    """The library's loss on every corruption of X0, weighed by its exact probability and integrated over time."""
    loss = Elbo(per=per)  # type: ignore[arg-type]

    def at(t: float) -> Tensor:
        law = enumerate_corruptions(X0, t, process.schedule, process.hiding, process.replace, process.vocab)
        batch = as_batch(X0, law)
        share = loss.share(batch)
        nats = loss(log_beliefs(process, logits, batch), batch.slots(), process)
        probability = law.probability[:, None].expand(batch.asked.shape)[batch.asked]
        return (probability * share.weight * nats).sum()

    if isinstance(process.hiding, UniformCount):  # one time from the middle of each count stands for its third
        return sum((at((count + 0.5) / 3) / 3 for count in range(3)), torch.zeros((), dtype=torch.float64))
    return integrate(at)


def exact_bound(logits: Tensor) -> Tensor:
    """The sum over hidden subsets H of (|H|-1)! (n-|H|)! / n! times the surprise of the slots in H."""
    total = torch.zeros((), dtype=torch.float64)
    for hidden in itertools.product((False, True), repeat=3):
        shown = [3 if h else x for h, x in zip(hidden, X0, strict=True)]
        state = sum(token * 4**place for place, token in enumerate(shown))
        for place in range(3):
            if hidden[place]:
                belief = logits[state, place, :3].log_softmax(-1)[X0[place]]
                total = total - beta_weights(3)[sum(hidden)] * belief
    return total


@pytest.mark.parametrize(
    ("schedule", "hiding"),
    [
        *((schedule, Bernoulli()) for schedule in COMPLETE),
        *((schedule, UniformCount()) for schedule in COMPLETE if schedule.max_ratio == 1),
    ],
    ids=str,
)
def test_the_bound_is_the_enumerated_one_on_every_schedule(schedule: NoiseSchedule, hiding: Hiding) -> None:
    """Value and gradient, for an arbitrary belief: the schedule and the rule of hiding change the variance alone."""
    process = MaskedDiffusion(FIVE, schedule, hiding)
    logits = table(3, FIVE, seed=4)
    tolerance = 1e-9 if isinstance(hiding, UniformCount) else 1e-9 + 20 * left_out(schedule)
    ours, exact = enumerated_bound(process, logits), exact_bound(logits)
    assert_close(ours, exact, rtol=0.0, atol=tolerance + 1e-6)
    our_slope, exact_slope = (torch.autograd.grad(value, logits)[0] for value in (ours, exact))
    assert_close(our_slope, exact_slope, rtol=0.0, atol=tolerance + 1e-6)
    assert exact_slope[..., FIVE.mask_id :].abs().max() == 0


@pytest.mark.parametrize(("per", "divisor"), [("token", 1), ("sequence", 3), ("batch", 1)])
def test_the_units_of_the_mean_divide_the_bound(per: str, divisor: int) -> None:
    """A token's mean is divided afterwards by the share's total, which counts slots."""
    logits = table(3, FIVE, seed=4)
    ours = enumerated_bound(MaskedDiffusion(FIVE, LogLinear()), logits, per)
    assert_close(ours * divisor, exact_bound(logits), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("hiding", [Bernoulli(), UniformCount()], ids=str)
def test_sampled_corruptions_average_to_the_enumerated_bound(hiding: Hiding) -> None:
    copies = 20_000
    process, logits = MaskedDiffusion(FIVE, LogLinear(), hiding), table(3, FIVE, seed=4).detach()
    canvas = stack(*[row(list(X0), length=3)] * copies)
    generator = seeded(0)
    noised = process.corrupt(canvas, Random(generator).times(canvas), Random(generator))
    nats = torch.zeros(copies * 3, dtype=torch.float64)
    nats[noised.slots().at] = process.nelbo(log_beliefs(process, logits, noised), noised.slots())
    sums = nats.reshape(copies, 3).sum(1)
    assert abs(sums.mean() - exact_bound(logits)) < 4 * sums.std() / math.sqrt(copies)


def test_exact_counts_vary_less() -> None:
    """Why LLaDA evaluates with them."""
    copies, spread = 5000, []
    canvas = stack(*[row(list(X0), length=3)] * copies)
    for hiding in (Bernoulli(), UniformCount()):
        process, logits, generator = MaskedDiffusion(FIVE, LogLinear(), hiding), table(3, FIVE, 4).detach(), seeded(0)
        noised = process.corrupt(canvas, Random(generator).times(canvas), Random(generator))
        nats = torch.zeros(copies * 3, dtype=torch.float64)
        nats[noised.slots().at] = process.nelbo(log_beliefs(process, logits, noised), noised.slots())
        spread.append(nats.reshape(copies, 3).sum(1).std())
    assert spread[1] < 0.7 * spread[0]


def test_what_validation_measures_does_not_depend_on_the_training_recipe() -> None:
    """The plain process behind the original recipe scores the same text with the same bound."""
    recipe = MaskedDiffusion(FIVE, LogLinear(0.15, 0.99), FloorCount(), Replace(0.8, 0.1, 0.1))
    logits = table(3, FIVE, seed=4)
    assert_close(enumerated_bound(recipe.plain, logits), exact_bound(logits), rtol=1e-6, atol=0.0)
