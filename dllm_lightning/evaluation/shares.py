"""How sure a share is that was counted: so many right of so many."""

from __future__ import annotations

import math
from typing import NamedTuple


class Share(NamedTuple):
    """A share, its standard error, and the interval that holds the true one in 95 of 100 cases."""

    value: float
    error: float
    low: float
    high: float


def share(right: int, count: int) -> Share:
    """The interval is Wilson's (Wilson, 1927); the error is half of the one for one standard deviation.

    That is close to the binomial error, and does not claim that a share of 0 or 1 is certain.
    """
    if not 0 <= right <= count or count < 1:
        raise ValueError(f"{right} right of {count} is no share.")
    low, high = _wilson(right / count, count, 1.959964)
    below, above = _wilson(right / count, count, 1.0)
    return Share(right / count, (above - below) / 2, low, high)


def _wilson(p: float, count: int, z: float) -> tuple[float, float]:
    middle, width = p + z * z / (2 * count), z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return (middle - width) / (1 + z * z / count), (middle + width) / (1 + z * z / count)
