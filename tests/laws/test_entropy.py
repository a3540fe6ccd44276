"""On a source of known entropy, the bound never beats it, approaches it, and with the exact denoiser equals it."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from dllm_lightning.noise import LogLinear
from dllm_lightning.process import Bernoulli, MaskedDiffusion, Random, UniformCount
from tests.laws.enumeration import as_batch, enumerate_corruptions, integrate, log_beliefs
from tests.laws.parts import row, seeded, vocabulary

FIVE = vocabulary(5)


def markov_chain(length: int, first: list[float], step: list[list[float]]) -> dict[tuple[int, ...], float]:
    """The probability of every text of a small source."""
    texts = {}
    for text in itertools.product(range(len(first)), repeat=length):
        p = first[text[0]]
        for here, there in itertools.pairwise(text):
            p *= step[here][there]
        texts[text] = p
    return texts


SOURCE = markov_chain(3, [0.6, 0.3, 0.1], [[0.7, 0.2, 0.1], [0.05, 0.15, 0.8], [0.3, 0.6, 0.1]])


def exact_beliefs() -> Tensor:
    """log p(x_0 of a slot | what x_t shows) under the source, for every state and slot: the best denoiser there is."""
    logits = torch.full((64, 3, 5), -100.0, dtype=torch.float64)
    for x_t in itertools.product(range(4), repeat=3):
        state = sum(token * 4**place for place, token in enumerate(x_t))
        for place, token in itertools.product(range(3), range(3)):
            agree = sum(
                p
                for text, p in SOURCE.items()
                if text[place] == token and all(shown in (3, clean) for shown, clean in zip(x_t, text, strict=True))
            )
            if agree > 0:
                logits[state, place, token] = math.log(agree)
    return logits


def source_bound(process: MaskedDiffusion, logits: Tensor) -> dict[tuple[int, ...], float]:
    """The bound of every text, by enumeration and quadrature of the library's nelbo."""
    texts = list(SOURCE)

    def at(t: float) -> Tensor:
        bounds = []
        for text in texts:
            law = enumerate_corruptions(text, t, process.schedule, process.hiding, process.replace, process.vocab)
            batch = as_batch(text, law)
            nats = process.nelbo(log_beliefs(process, logits, batch), batch.slots())
            bounds.append((law.probability[:, None].expand(batch.asked.shape)[batch.asked] * nats).sum())
        return torch.stack(bounds)

    return dict(zip(texts, integrate(at, nodes=9, power=1).tolist(), strict=True))


ENTROPY = -sum(p * math.log(p) for p in SOURCE.values())


def expected(bounds: dict[tuple[int, ...], float]) -> float:
    return sum(p * bounds[text] for text, p in SOURCE.items())


def test_with_the_exact_denoiser_the_bound_is_the_likelihood_of_every_text() -> None:
    """And so its mean over a known source is the source's entropy: masked diffusion loses nothing."""
    bounds = source_bound(MaskedDiffusion(FIVE, LogLinear()), exact_beliefs())
    for text, p in SOURCE.items():
        assert bounds[text] == pytest.approx(-math.log(p), rel=1e-9)
    assert expected(bounds) == pytest.approx(ENTROPY, rel=1e-9)


def test_no_denoiser_beats_the_entropy_of_the_source_and_better_ones_approach_it() -> None:
    wrong = torch.randn(64, 3, 5, generator=seeded(0), dtype=torch.float64)
    process = MaskedDiffusion(FIVE, LogLinear())
    sizes = (1.0, 0.3, 0.1, 0.01)
    excess = [expected(source_bound(process, exact_beliefs() + size * wrong)) - ENTROPY for size in sizes]
    assert all(gap > 0 for gap in excess)
    assert excess == sorted(excess, reverse=True)
    assert excess[-1] < 1e-4 * ENTROPY


def test_sampled_text_scores_the_entropy_of_its_source() -> None:
    """The whole way through the library, with a time for each document, within four standard errors."""
    copies, texts = 20_000, torch.tensor(list(SOURCE))
    generator = seeded(3)
    chosen = torch.multinomial(torch.tensor(list(SOURCE.values())), copies, replacement=True, generator=generator)
    canvas = row([0, 0, 0], length=3)
    canvas = canvas._replace(
        ids=texts[chosen], editable=canvas.editable.expand(copies, 3), segment=canvas.segment.expand(copies, 3)
    )
    for hiding in (Bernoulli(), UniformCount()):
        process = MaskedDiffusion(FIVE, LogLinear(), hiding)
        noised = process.corrupt(canvas, Random(generator).times(canvas), Random(generator))
        nats = torch.zeros(copies * 3, dtype=torch.float64)
        nats[noised.slots().at] = process.nelbo(log_beliefs(process, exact_beliefs(), noised), noised.slots())
        sums = nats.reshape(copies, 3).sum(1)
        assert abs(sums.mean() - ENTROPY) < 4 * sums.std() / math.sqrt(copies)
