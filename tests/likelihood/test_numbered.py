"""Noise by number: the same for the same number, independent for others, two draws in each stratum of time."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from dllm_lightning.likelihood import Numbered
from tests.likelihood.worlds import texts

ROWS = texts(torch.zeros(3, 8, dtype=torch.long), 2)


def test_texts_of_one_number_share_times_and_noise_slot_by_slot_wherever_these_lie() -> None:
    short, long = texts(torch.zeros(1, 5, dtype=torch.long), 3), texts(torch.zeros(1, 40, dtype=torch.long), 7)
    one, other = Numbered(0, 1, 4, [5]), Numbered(0, 1, 4, [5])
    assert one.times(short)[0, 0] == other.times(long)[0, 0]
    for _ in range(2):  # fresh at each call, and the same in both
        assert_close(one.uniform(short)[0, 3:], other.uniform(long)[0, 7:9])


def test_other_numbers_draws_seeds_and_calls_are_independent() -> None:
    many = texts(torch.zeros(1, 4000, dtype=torch.long))
    first = Numbered(0, 0, 4, [5])
    usual, again = first.uniform(many), first.uniform(many)
    for other in (Numbered(0, 0, 4, [6]), Numbered(0, 1, 4, [5]), Numbered(1, 0, 4, [5])):
        assert abs(float(torch.corrcoef(torch.cat([usual, other.uniform(many)]))[0, 1])) < 0.06
    assert abs(float(torch.corrcoef(torch.cat([usual, again]))[0, 1])) < 0.06


def test_numbers_are_uniform() -> None:
    drawn = Numbered(0, 0, 2, range(50)).uniform(texts(torch.zeros(50, 400, dtype=torch.long)))
    assert (drawn >= 0).all() and (drawn < 1).all()
    quarters = torch.histc(drawn, 4, 0, 1) / drawn.numel()
    assert_close(quarters, torch.full((4,), 0.25), rtol=0, atol=0.015)
    assert abs(float(drawn.mean()) - 0.5) < 0.01


@pytest.mark.parametrize(("draws", "strata"), [(1, 1), (2, 1), (8, 4)])
def test_draws_come_in_pairs_one_for_each_stratum(draws: int, strata: int) -> None:
    numbers = range(3)
    t = torch.stack([Numbered(0, draw, draws, numbers).times(ROWS)[:, 0] for draw in range(draws)], dim=1)
    assert (t > 0).all() and (t <= 1).all()
    stratum = (t * strata).ceil().long() - 1
    assert stratum.tolist() == [[draw // 2 for draw in range(draws)]] * 3
    assert len({*t.flatten().tolist()}) == t.numel()


def test_draws_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="draw=4 among draws=4"):
        Numbered(0, 4, 4, [0])
    with pytest.raises(ValueError, match="draws=7 is odd, and draws come in pairs: give an even number, or 1"):
        Numbered(0, 0, 7, [0])
