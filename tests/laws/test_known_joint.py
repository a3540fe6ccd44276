"""With the exact belief of a known distribution, samplers that draw sample that distribution.

Some do in the limit of many steps, some at one token a step, where the order does not depend on what is drawn. What
cannot is shown to fail, so that the test is known to see it: writing many dependent slots at once, and writing those
first whose *drawn* token is the most probable, which prefers probable texts.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_lightning.sampler import (
    Ancestral,
    AtRandom,
    Blockwise,
    Cap,
    Constant,
    EntropyBound,
    Fixed,
    Guided,
    LeastEntropy,
    LeftToRight,
    Linear,
    Margin,
    Plateau,
    PredictorCorrector,
    Proposal,
    Psi,
    Rescale,
    Reveal,
    Scheduled,
    Shuffled,
)
from tests.laws.parts import seeded, source, vocabulary
from tests.sampler.denoisers import Cavity, Joint, blank, plain, uniform

ROWS = 1500
LENGTH = 3
VOCAB = vocabulary(5)
DRAW = Proposal(1.0)


def reveal(**parts: Any) -> Reveal:
    return Reveal(proposal=DRAW, **parts)


def psi(kappa: Any, steps: int, profile: Any = Linear(0.0, 0.0)) -> Psi:  # noqa: B008, frozen
    return Psi(steps, profile=profile, middle=kappa, low=Constant(1.0) if isinstance(profile, Plateau) else kappa)


ONE_BY_ONE = [
    reveal(order=Shuffled()),
    reveal(order=LeftToRight()),
    reveal(order=LeastEntropy()),
    reveal(order=Margin()),
    reveal(order=LeastEntropy(), pace=EntropyBound(1e-9)),
    reveal(order=Shuffled(), undo=AtRandom(0.5)),
    Blockwise(reveal(order=Shuffled()), 2, stop=False),
    Guided(reveal(order=Shuffled()), 0.0),
]
"""Exact, whatever the number of steps."""


def many_steps(steps: int) -> list[Any]:
    """Exact in the limit."""
    return [
        Ancestral(steps),
        reveal(steps=steps, order=Shuffled(), pace=Scheduled(at_random=True)),
        Blockwise(Ancestral(steps), 2, stop=False),
        psi(Constant(0.9), steps),
        psi(Cap(0.05), steps),
        psi(Rescale(0.1), steps),
        psi(Fixed(0.02), steps, Plateau(0.45, 0.5)),
    ]


def walks_from_random_tokens(steps: int) -> list[Any]:
    return [
        Ancestral(steps),
        psi(Constant(0.9), steps),
        psi(Cap(0.05), steps),
        psi(Fixed(0.02), steps, Plateau(0.45, 0.5)),
    ]


def distance(counts: Tensor) -> float:
    """Total variation between what came out and the source."""
    return 0.5 * (counts.double() / counts.sum() - source().flatten()).abs().sum().item()


@cache
def by_chance(quantile: float = 0.999) -> float:
    """The distance that so many draws from the source itself stay below."""
    draws = torch.multinomial(source().flatten(), ROWS * 400, replacement=True, generator=seeded(6)).view(400, ROWS)
    return torch.tensor([distance(torch.bincount(each, minlength=27)) for each in draws]).quantile(quantile).item()


def off(sampler: Any, kind: Any = plain, belief: Any = Joint) -> float:
    """How far what a sampler draws is from the source."""
    joint = belief(source(), kind(VOCAB))
    return distance(joint.counts(sampler.sample(joint, blank(*[LENGTH] * ROWS, prompt=0, vocab=VOCAB), seeded(7))))


@pytest.mark.parametrize("sampler", ONE_BY_ONE, ids=lambda sampler: str(sampler)[:90])
def test_one_token_a_step_samples_the_source(sampler: Any) -> None:
    assert off(sampler) < by_chance()


@pytest.mark.parametrize("number", range(len(many_steps(1))))
def test_with_many_steps_the_source_is_sampled_and_with_few_it_is_not(number: int) -> None:
    assert off(many_steps(96)[number]) < by_chance() < off(many_steps(2)[number])


@pytest.mark.parametrize("number", range(len(walks_from_random_tokens(1))))
def test_from_random_tokens_too(number: int) -> None:
    few, many = (off(walks_from_random_tokens(steps)[number], uniform, Cavity) for steps in (2, 96))
    assert many < by_chance() < few


def test_a_walk_that_starts_over_at_every_stride_comes_closer_with_each_of_them() -> None:
    """It rewrites what little is noise still, which becomes a slot at a time only in the very limit."""
    few, more, many = (off(psi(PredictorCorrector(), steps)) for steps in (2, 12, 96))
    assert few > 1.5 * more > 2 * many and many < 2 * by_chance()


def test_what_writes_too_much_or_picks_by_its_own_luck_does_not() -> None:
    for sampler in (reveal(), reveal(steps=1), reveal(order=LeastEntropy(), pace=EntropyBound(2.0))):
        assert off(sampler) > 2 * by_chance()
