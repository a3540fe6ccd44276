"""Where a text goes on, no answer ends, and everything else is as likely as it was beside it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.testing import assert_close

from dllm_lightning.model.ongoing import Ongoing
from tests.laws.parts import vocabulary
from tests.sampler.denoisers import Fixed, blank, plain

VOCAB = vocabulary(11)
CANVAS = blank(4, 3)
INSIDE = CANVAS.editable & (torch.arange(7) < 5)
LOG_P = torch.randn(7, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log_softmax(-1)


def belief(at: Tensor, rows: int = 2) -> Tensor:
    ongoing = Ongoing(Fixed(LOG_P, plain(VOCAB)), INSIDE, VOCAB.eos_id)
    x_t = CANVAS.ids.repeat(rows // 2, 1)
    return ongoing.within(CANVAS)(x_t, torch.ones(rows), CANVAS.segment.repeat(rows // 2, 1), at)


def test_an_end_has_no_probability_inside_and_the_others_share_it_in_proportion() -> None:
    at = CANVAS.editable & (torch.arange(7) != 4)
    found, was, inside = belief(at), LOG_P.expand(2, -1, -1)[at], INSIDE[at]
    assert (found[inside, VOCAB.eos_id] == -torch.inf).all() and inside.any() and not inside.all()
    assert_close(found.exp().sum(1), torch.ones(len(found), dtype=torch.float64))
    assert_close(found[~inside], was[~inside])
    others = [i for i in range(11) if i != VOCAB.eos_id]
    assert_close(found[inside][:, others], was[inside][:, others].log_softmax(-1))


def test_rows_that_are_asked_twice_have_the_same_gaps_twice() -> None:
    twice = belief(CANVAS.editable.repeat(2, 1), rows=4)
    assert torch.equal(*twice.chunk(2)) and torch.equal(twice[: len(twice) // 2], belief(CANVAS.editable))


def test_even_who_is_certain_of_an_end_writes_something_else() -> None:
    certain = torch.full((7, 11), -50.0)
    certain[:, VOCAB.eos_id] = 0.0
    ongoing = Ongoing(Fixed(certain, plain(VOCAB)), INSIDE, VOCAB.eos_id)
    found = ongoing(CANVAS.ids, torch.ones(2), CANVAS.segment, INSIDE)
    assert_close(found.exp().sum(1), torch.ones(len(found))) and not found.isnan().any()
