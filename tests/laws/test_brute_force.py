"""Every loss, weight and unit of the mean against enumeration: exact expectations and exact gradients (K = 5, 3 slots).

The right-hand sides use no code of the losses: surprises from a plain softmax, weights from the definitions, and the
gradient of a surprise written out, p - e_x.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.testing import assert_close

from dllm_lightning.loss import Elbo, Loss, MaskedCE, WeightedCE
from dllm_lightning.loss.loss import Per
from dllm_lightning.noise import Cosine, LogLinear, NoiseSchedule
from dllm_lightning.process import Bernoulli, FloorCount, Hiding, MaskedDiffusion, Random, Replace, UniformCount
from tests.laws.enumeration import Outcomes, as_batch, codes, enumerate_corruptions, log_beliefs, table
from tests.laws.parts import HIDINGS, LOSSES, SCHEDULES, row, seeded, stack, vocabulary

VOCAB = vocabulary(5)
X0 = (2, 0, 1)
MIXTURE = Replace(0.8, 0.1, 0.1)
CANDIDATES: list[Callable[[Per], Loss]] = [
    lambda per: Elbo(per=per),
    lambda per: MaskedCE(per=per),
    lambda per: WeightedCE(per=per, weight="elbo", max_weight=None),
    lambda per: WeightedCE(per=per, weight="elbo", max_weight=1.7),
    lambda per: WeightedCE(per=per, weight="level", max_weight=None),
    lambda per: WeightedCE(per=per, weight="level", max_weight=1.7),
]


def test_every_loss_is_held_against_enumeration() -> None:
    assert {type(candidate("token")) for candidate in CANDIDATES} == set(LOSSES)


def defined_weight(loss: Loss, process: MaskedDiffusion, clock: float) -> float:
    """What a hidden slot's surprise is multiplied by, from the words of the loss."""
    if isinstance(loss, MaskedCE):
        return 1.0
    t = torch.tensor([clock], dtype=torch.float64)
    counted = isinstance(process.hiding, UniformCount)
    hidden = clock if counted else process.schedule.mask_ratio(t).item()
    bound = 1 / clock if counted else -process.schedule.alpha_prime(t).item() / hidden
    if isinstance(loss, Elbo):
        return bound
    assert isinstance(loss, WeightedCE)
    return min(bound if loss.weight == "elbo" else 1 / hidden, loss.max_weight or math.inf)


def by_hand(loss: Loss, process: MaskedDiffusion, law: Outcomes, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The exact expectations of the weighted nats and of the divisor, and the gradient of the first."""
    asked = law.asked.double()
    state = codes(law.x_t, VOCAB.length)[:, None].expand(asked.shape)
    place = torch.arange(asked.shape[1]).expand(asked.shape)
    token = torch.tensor(X0).expand(asked.shape)
    p = logits.detach()[state, place, :3].softmax(-1)
    surprise = -p.gather(-1, token[..., None]).squeeze(-1).log()
    counted = asked.sum(1) if isinstance(loss, MaskedCE) else torch.full_like(law.probability, len(X0))
    unit = 1 / counted.clamp(min=1) if loss.per == "sequence" else torch.ones_like(counted)
    (clock,) = law.clock.unique().tolist()
    factor = (law.probability * defined_weight(loss, process, clock) * unit)[:, None] * asked
    divisor = (law.probability * (counted if loss.per == "token" else counted > 0)).sum()
    slope = torch.zeros_like(logits)
    slope.index_put_((state, place), factor[..., None] * pad(p, (0, 2)), accumulate=True)
    slope.index_put_((state, place, token), -factor, accumulate=True)
    return (factor * surprise).sum(), divisor, slope


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("hiding", HIDINGS, ids=str)
def test_losses_and_gradients_are_the_enumerated_ones(schedule: NoiseSchedule, hiding: Hiding) -> None:
    """For any belief, without and with a mixture: the library on one row per outcome, weighed by its probability."""
    logits = table(len(X0), VOCAB, seed=1)
    for replace, t in ((Replace(), 0.2), (MIXTURE, 0.8)):
        process = MaskedDiffusion(VOCAB, schedule, hiding, replace)
        law = enumerate_corruptions(X0, t, schedule, hiding, replace, VOCAB)
        batch = as_batch(X0, law)
        probability = law.probability[:, None].expand(batch.asked.shape)[batch.asked]
        for loss in (candidate(per) for candidate in CANDIDATES for per in get_args(Per)):
            if loss.refuses(process) is None:
                nats = loss(log_beliefs(process, logits, batch), batch.slots(), process)
                ours = (probability * loss.share(batch).weight * nats).sum()
                exact, _, slope = by_hand(loss, process, law, logits)
                assert_close(ours.detach(), exact, rtol=1e-6, atol=1e-9)
                assert_close(torch.autograd.grad(ours, logits)[0], slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "process",
    [
        MaskedDiffusion(VOCAB, LogLinear()),
        MaskedDiffusion(VOCAB, Cosine(), UniformCount()),
        MaskedDiffusion(VOCAB, Cosine(0.15, 0.99), Bernoulli(), Replace(0.2, 0.7, 0.1)),
        MaskedDiffusion(VOCAB, LogLinear(0.15, 0.99), FloorCount(), MIXTURE),
    ],
    ids=["mdlm", "counted", "bounded", "original"],
)
def test_sampled_corruptions_average_to_the_enumerated_losses(process: MaskedDiffusion) -> None:
    """Sums and divisors through `corrupt` and `share`, within four standard errors, over forty levels of noise."""
    levels, copies = 40, 250
    logits = table(len(X0), VOCAB, seed=2).detach()
    times = [(level + 0.5) / levels for level in range(levels)]
    parts = process.schedule, process.hiding, process.replace, process.vocab
    laws = [enumerate_corruptions(X0, t, *parts) for t in times]
    t = torch.tensor(times).repeat_interleave(copies)[:, None].expand(-1, len(X0))
    noised = process.corrupt(stack(*[row(list(X0), length=len(X0))] * len(t)), t, Random(seeded(0)))
    beliefs, slots = log_beliefs(process, logits, noised), noised.slots()
    for loss in (candidate(per) for candidate in CANDIDATES for per in get_args(Per)):
        if loss.refuses(process) is not None:
            continue
        share = loss.share(noised)
        nats = torch.zeros(noised.asked.numel(), dtype=torch.float64)
        nats[slots.at] = share.weight * loss(beliefs, slots, process)
        sums = nats.reshape(levels, copies, len(X0)).sum(-1)
        exact, divisors, _ = zip(*(by_hand(loss, process, law, logits) for law in laws), strict=True)
        error = (sums.var(1).mean() / (levels * copies)).sqrt()
        assert abs(sums.mean() - torch.stack(exact).mean()) < 4 * error + 1e-9, loss
        documents = len(t)
        assert share.total.item() / documents == pytest.approx(torch.stack(divisors).mean().item(), rel=0.02), loss
