"""Intervals of shares: Wilson's numbers, and how often they hold the truth."""

from __future__ import annotations

import math
import random

import pytest

from dllm_lightning.evaluation.shares import share


def test_the_interval_is_wilsons() -> None:
    """Newcombe (1998), table I: 81 of 263, and 0 of 20."""
    assert share(81, 263)[2:] == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert share(0, 20)[2:] == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_the_error_is_the_binomial_one_and_never_zero() -> None:
    assert share(400, 500).error == pytest.approx(math.sqrt(0.8 * 0.2 / 500), rel=0.01)
    assert share(500, 500).value == 1.0 and 0.0005 < share(500, 500).error < 0.002


@pytest.mark.parametrize("p", [0.5, 0.9, 0.98])
def test_the_interval_holds_the_truth_in_95_of_100_cases(p: float) -> None:
    draw = random.Random(0)
    found = [share(sum(draw.random() < p for _ in range(100)), 100) for _ in range(2000)]
    assert 0.93 < sum(each.low <= p <= each.high for each in found) / len(found) < 0.975


def test_what_is_no_share_is_refused() -> None:
    for right, count in ((3, 2), (-1, 5), (0, 0)):
        with pytest.raises(ValueError, match="is no share"):
            share(right, count)
