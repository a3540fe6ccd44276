"""Small worlds in which nothing is sampled: every corruption of a short answer with its exact probability.

Written from the definitions and not from the library, so that the two can be held against each other. A world has one
document whose slots are all editable; its clean text is x0, and the network is a table of logits, one row for each
state x_t and slot, so any belief whatsoever is possible.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dllm_lightning.noise import NoiseSchedule
from dllm_lightning.process import Bernoulli, FloorCount, Hiding, MaskedDiffusion, Replace, UniformCount
from dllm_lightning.types import Canvas, Corrupted, Vocab


class Outcomes(NamedTuple):
    """All M ways to corrupt a text of n slots: their probabilities, what is asked, what is shown, and the clock."""

    probability: Tensor  # (M)
    asked: Tensor  # (M n)
    x_t: Tensor  # (M n)
    clock: Tensor  # (M), the time that comes back


def hide(n: int, t: float, schedule: NoiseSchedule, hiding: Hiding) -> list[tuple[float, tuple[bool, ...], float]]:
    """(probability, hidden slots, clock) of every choice of slots at time t."""
    r = schedule.mask_ratio(torch.tensor([t], dtype=torch.float64)).item()
    choices = []
    for hidden in itertools.product((False, True), repeat=n):
        size = sum(hidden)
        match hiding:
            case Bernoulli():
                choices.append((r**size * (1 - r) ** (n - size), hidden, t))
            case UniformCount():
                count = math.ceil(n * (schedule.min_ratio + t * (schedule.max_ratio - schedule.min_ratio)))
                choices.append(((size == count) / math.comb(n, count), hidden, count / n))
            case FloorCount():
                count = math.floor(n * r)
                choices.append(((size == count) / math.comb(n, count), hidden, t))
            case _:
                raise NotImplementedError(f"{hiding} needs its law written here")
    return [choice for choice in choices if choice[0] > 0]


def enumerate_corruptions(
    x0: tuple[int, ...], t: float, schedule: NoiseSchedule, hiding: Hiding, replace: Replace, vocab: Vocab
) -> Outcomes:
    """Every (asked, x_t) that corruption can make of x0, once."""
    random = {int(token): replace.random / len(vocab.noise_ids) for token in vocab.noise_ids}
    found: dict[tuple[tuple[bool, ...], tuple[int, ...], float], float] = {}
    for chance, hidden, clock in hide(len(x0), t, schedule, hiding):
        shows: list[dict[int, float]] = []
        for token, is_hidden in zip(x0, hidden, strict=True):
            shares = {**random, vocab.mask_id: replace.mask} if is_hidden else {token: 1.0}
            if is_hidden:
                shares[token] = shares.get(token, 0.0) + replace.keep
            shows.append({shown: share for shown, share in shares.items() if share > 0})
        for x_t in itertools.product(*shows):
            key = hidden, x_t, clock
            product = math.prod(shares[shown] for shares, shown in zip(shows, x_t, strict=True))
            found[key] = found.get(key, 0.0) + chance * product
    hidden, x_t, clocks = zip(*found, strict=True)
    return Outcomes(
        torch.tensor(list(found.values()), dtype=torch.float64),
        torch.tensor(hidden),
        torch.tensor(x_t),
        torch.tensor(clocks, dtype=torch.float64),
    )


def as_batch(x0: tuple[int, ...], outcomes: Outcomes) -> Corrupted:
    """The outcomes as a batch of one document a row, as the library would have made it."""
    shape = outcomes.x_t.shape
    ids = torch.tensor(x0).expand(shape)
    canvas = Canvas(ids, torch.ones(shape, dtype=torch.bool), torch.ones(shape, dtype=torch.long))
    return Corrupted(canvas, outcomes.x_t, outcomes.clock[:, None].expand(shape), outcomes.asked)


def codes(x_t: Tensor, size: int) -> Tensor:
    """One number per state."""
    return (x_t * size ** torch.arange(x_t.shape[-1])).sum(-1)


def table(slots: int, vocab: Vocab, seed: int) -> Tensor:
    """An arbitrary belief: logits (state, slot, K) in float64."""
    generator = torch.Generator().manual_seed(seed)
    shape = vocab.length**slots, slots, vocab.size
    return (2 * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()


def log_beliefs(process: MaskedDiffusion, logits: Tensor, batch: Corrupted) -> Tensor:
    """What the table says about the asked slots of a batch, as the library reads it."""
    slots = batch.slots()
    state = codes(batch.x_t, process.vocab.length)
    return process.log_p_x0(logits[state].flatten(0, 1)[slots.at], slots)


def beta_weights(n: int) -> list[float]:
    """integral of -alpha'/(1-alpha) (1-alpha)^l alpha^(n-l) dt for l = 0..n: (l-1)! (n-l)! / n!, on every schedule."""
    return [0.0] + [math.factorial(size - 1) * math.factorial(n - size) / math.factorial(n) for size in range(1, n + 1)]


def integrate(integrand: Callable[[float], Tensor], panels: int = 1, nodes: int = 32, power: int = 6) -> Tensor:
    """Gauss and Legendre's rule on (0, 1) for t = u^power, which tames the roots and logarithms at t = 0."""
    points, weights = gauss_legendre(nodes)
    total = torch.zeros((), dtype=torch.float64)
    for panel in range(panels):
        for point, weight in zip(points, weights, strict=True):
            u = (panel + (point + 1) / 2) / panels
            total = total + weight / 2 / panels * power * u ** (power - 1) * integrand(u**power)
    return total


def gauss_legendre(n: int) -> tuple[list[float], list[float]]:
    """Nodes and weights on (-1, 1) from the eigenvectors of the Jacobi matrix (Golub and Welsch, 1969)."""
    k = torch.arange(1, n, dtype=torch.float64)
    beside = k / (4 * k**2 - 1).sqrt()
    points, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    return points.tolist(), (2 * vectors[0] ** 2).tolist()
