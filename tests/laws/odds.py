"""How surprising a count is. Everything comes out in standard deviations, so one threshold serves all tests.

All draws in the tests are seeded: these laws hold or fail, they do not flicker.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SURPRISING = 4.5
"""Exceeded by one true law in 300,000."""


def chi_square(counts: Tensor, expected: Tensor) -> float:
    """Pearson's statistic as a standard normal (Wilson and Hilferty, 1931); cells expecting less than 5 are merged.

    Infinite when something impossible was counted.
    """
    counts, expected = counts.double().flatten(), expected.double().flatten()
    if (counts[expected == 0] > 0).any():
        return math.inf
    few = expected < 5
    counts = torch.cat([counts[~few], counts[few].sum()[None]])
    expected = torch.cat([expected[~few], expected[few].sum()[None]])
    possible = expected > 0
    statistic = ((counts - expected)[possible] ** 2 / expected[possible]).sum().item()
    freedom = int(possible.sum()) - 1
    if freedom == 0:
        return 0.0 if statistic < 1e-9 else math.inf
    spread = 2 / (9 * freedom)
    return ((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)


def uniformity(sample: Tensor) -> float:
    """Kolmogorov's distance from uniform on [0, 1], times the square root of the count: above 2.3 once in 50,000."""
    sample = sample.double().flatten().sort().values
    n = sample.numel()
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    return max((steps[1:] - sample).max().item(), (sample - steps[:-1]).max().item()) * math.sqrt(n)


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation in its own standard deviations."""
    a, b = a.double().flatten(), b.double().flatten()
    return (torch.corrcoef(torch.stack([a, b]))[0, 1] * math.sqrt(a.numel())).item()
