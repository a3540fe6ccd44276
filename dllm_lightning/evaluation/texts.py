"""How varied texts are, by their tokens alone: what repeats within a text, and what is the same in many."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

Tokens = Sequence[int]


def repeated(texts: Sequence[Tokens], n: int) -> float:
    """The share of n-grams that stood in the same text before; not a number where no text has n tokens."""
    total, unique = 0, 0
    for text in texts:
        grams = [*_grams(text, n)]
        total, unique = total + len(grams), unique + len({*grams})
    return 1 - unique / total if total else math.nan


def distinct(texts: Sequence[Tokens], n: int) -> float:
    """Different n-grams per n-gram, over all texts together (Li et al., arXiv:1510.03055).

    It falls as texts are added, so it compares only what has equally many.
    """
    grams = [gram for text in texts for gram in _grams(text, n)]
    return len({*grams}) / len(grams) if grams else math.nan


def entropy(text: Tokens) -> float:
    """Nats per token of the text's own token frequencies; at most the logarithm of its length."""
    return -math.fsum(n / len(text) * math.log(n / len(text)) for n in Counter(text).values()) if text else math.nan


def mean(values: Sequence[float]) -> tuple[float, float]:
    """The mean of those that are numbers, and its standard error."""
    found = [value for value in values if math.isfinite(value)]
    if not found:
        return math.nan, math.nan
    middle = math.fsum(found) / len(found)
    spread = math.fsum((value - middle) ** 2 for value in found)
    return middle, math.sqrt(spread / (len(found) - 1) / len(found)) if len(found) > 1 else math.nan


def _grams(text: Tokens, n: int) -> Iterator[Tokens]:
    return (tuple(text[start : start + n]) for start in range(len(text) - n + 1))
