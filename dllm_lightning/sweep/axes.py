"""Axes and colours for swept values: numbers where they are, categories side by side, decades as logarithms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import pstdev
from typing import TYPE_CHECKING, Any

from dllm_lightning.sweep.results import Value
from dllm_lightning.sweep.table import text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

APART = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, which colour-blind readers can tell apart."""
CROWDED, LONG = 8, 6  # more values than these, or longer ones, are not each a tick


def numeric(values: Sequence[Value]) -> bool:
    return all(not isinstance(value, str) for value in values)


def decades(values: Sequence[float]) -> bool:
    """Whether they belong on a logarithmic axis: they span two decades, or one, and lie more evenly there."""
    low, high = min(values), max(values)
    if low <= 0 or high < 10 * low:
        return False
    steps = [pairwise(sorted(values)), pairwise(sorted(map(math.log, values)))]
    linear, logarithmic = ([b - a for a, b in pairs] for pairs in steps)
    return high >= 100 * low or pstdev(logarithmic) / math.fsum(logarithmic) < pstdev(linear) / math.fsum(linear)


def along(ax: Axes, values: list[Value]) -> Callable[[Value], float]:
    """Prepares the horizontal axis for these values, and says where each lies."""
    if not numeric(values):
        ax.set_xticks(range(len(values)), [text(value) for value in values])
        ax.set_xlim(-0.5, len(values) - 0.5)
        if sum(len(text(value)) for value in values) > 30:
            ax.tick_params(axis="x", rotation=30)
            for label in ax.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        return values.index
    numbers = [value for value in values if not isinstance(value, str)]
    if log := decades(numbers):
        ax.set_xscale("log")
    if len(numbers) <= CROWDED and all(len(str(number)) <= LONG for number in numbers):
        from matplotlib.ticker import NullLocator

        kept = _apart(numbers, log)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xticks(kept, [text(number) for number in kept])
    return float


def _apart(numbers: list[float], log: bool) -> list[float]:
    """Those with room for their label, the two ends first."""
    scale = math.log if log else float
    room = (scale(numbers[-1]) - scale(numbers[0])) / 9
    kept = [numbers[0]]
    for number in numbers[1:-1]:
        if min(scale(number) - scale(kept[-1]), scale(numbers[-1]) - scale(number)) > room:
            kept.append(number)
    return [*kept, *numbers[-1:]] if len(numbers) > 1 else kept


def height(ax: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis upwards where the results span two decades."""
    if values and min(values) > 0 and max(values) >= 100 * min(values):
        ax.set_yscale("log")


def colours(hues: Sequence[Value | None]) -> list[Any]:
    """One for each: from dark to light for numbers in their order, as different as can be for names."""
    from matplotlib import colormaps

    if len(hues) > 1 and all(isinstance(hue, int | float) for hue in hues):
        return [colormaps["viridis"](0.1 + 0.7 * place / (len(hues) - 1)) for place in range(len(hues))]
    return [APART[place % len(APART)] for place in range(len(hues))]
