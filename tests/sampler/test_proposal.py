"""What is proposed: draws from the belief, tempered and cut, and the tokens that never are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dllm_lightning.sampler import Ancestral, Proposal, Refine, Reveal, Several
from tests.laws.odds import SURPRISING, chi_square
from tests.laws.parts import seeded, vocabulary
from tests.sampler.denoisers import Fixed, blank, plain, uniform

VOCAB = vocabulary(11)
BELIEF = torch.tensor([0.5, 0.3, 0.1, 0.08, 0.02, *[0.0] * 6]).log()
MANY = blank(*[1] * 4000, prompt=0)


def drawn(proposal: Proposal, belief: Tensor = BELIEF) -> Tensor:
    """How often each token comes out."""
    tokens = Reveal(proposal=proposal).sample(Fixed(belief[None], plain(VOCAB)), MANY, seeded(2)).flatten()
    return torch.bincount(tokens, minlength=VOCAB.size)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_a_temperature_draws_from_the_sharpened_beliefs(temperature: float) -> None:
    expected = (BELIEF / temperature).softmax(-1) * len(MANY.ids)
    assert chi_square(drawn(Proposal(temperature)), expected) < SURPRISING


@pytest.mark.parametrize(
    ("cut", "kept"),
    [
        ({"top_k": 2}, 2),
        ({"top_k": 99}, 5),
        ({"top_p": 0.55}, 2),
        ({"top_p": 0.79}, 2),
        ({"min_p": 0.18}, 3),
        ({"top_k": 4, "top_p": 0.9, "min_p": 0.5}, 2),
    ],
    ids=str,
)
def test_what_is_cut_off_is_never_drawn_and_the_rest_keeps_its_odds(cut: dict[str, Any], kept: int) -> None:
    expected = BELIEF[:kept].softmax(-1) * len(MANY.ids)
    found = drawn(Proposal(1.0, **cut))
    assert found[kept:].sum() == 0 and chi_square(found[:kept], expected) < SURPRISING
    assert_close(Proposal(1.0, **cut).tempered(BELIEF[None])[0, :kept], BELIEF[:kept].double().softmax(-1))


def test_suppressed_tokens_leave_their_odds_to_the_others() -> None:
    for proposal in (Proposal(suppress=[0]), Proposal(suppress=[0, VOCAB.eos_id]), Proposal(no_end=True)):
        banned = {*proposal.suppress, *([VOCAB.eos_id] if proposal.no_end else [])}
        first = min({*range(5)} - banned)
        assert drawn(proposal)[first] == len(MANY.ids)
        (step,) = Reveal(proposal=proposal).trajectory(Fixed(BELIEF[None], plain(VOCAB)), blank(1, prompt=0))
        rest = 1 - sum(BELIEF[token].exp() for token in banned)
        assert_close(step.confidence[0, 0], BELIEF[first].exp() / rest)


def test_ends_are_written_last_but_are_written() -> None:
    """The surest slot wants to end the answer; so does the last, while any other is written before them."""
    log_p = torch.full((4, VOCAB.size), -torch.inf)
    log_p[0, [VOCAB.eos_id, 5]] = torch.tensor([0.9, 0.1]).log()
    log_p[1, [VOCAB.eos_id, 5, 6]] = torch.tensor([0.4, 0.41, 0.19]).log()  # .68 without the end
    log_p[2, [5, 6]] = torch.tensor([0.6, 0.4]).log()
    log_p[3, [VOCAB.eos_id, 5]] = torch.tensor([0.8, 0.2]).log()
    steps = [*Reveal(proposal=Proposal(end_last=True)).trajectory(Fixed(log_p, plain(VOCAB)), blank(4, prompt=0))]
    assert [int(step.changed[0].long().argmax()) for step in steps] == [1, 2, 0, 3]
    assert steps[-1].x[0].tolist() == [VOCAB.eos_id, 5, 5, VOCAB.eos_id]
    assert_close(steps[0].confidence[0, 1], torch.tensor(0.41))  # told as it is believed
    two = Reveal(pace=Several(3), proposal=Proposal(end_last=True))
    first, _ = two.trajectory(Fixed(log_p, plain(VOCAB)), blank(4, prompt=0))
    assert first.changed[0].tolist() == [True, True, True, False]  # the quota is filled


def test_a_walk_without_an_order_takes_the_same_proposals() -> None:
    for process, sampler in (
        (plain(VOCAB), Ancestral(3, Proposal(0.0, suppress=[0]))),
        (uniform(VOCAB), Refine(proposal=Proposal(0.0, suppress=[0]))),
    ):
        text = sampler.sample(Fixed(BELIEF.expand(3, -1), process), blank(3, prompt=0), seeded(0))
        assert text[0].tolist() == [1, 1, 1]


def test_the_vocabulary_is_as_wide_as_the_belief() -> None:
    with pytest.raises(ValueError, match="has the id 11, and the vocabulary ends at 10"):
        drawn(Proposal(suppress=[11]))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temperature": -0.5}, "sampler.proposal.temperature=-0.5"),
        ({"temperature": float("nan")}, "sampler.proposal.temperature=nan"),
        ({"top_k": 0}, "sampler.proposal.top_k=0"),
        ({"top_p": 0.0}, "sampler.proposal.top_p=0.0"),
        ({"min_p": 1.5}, "sampler.proposal.min_p=1.5"),
        ({"suppress": [-1]}, "sampler.proposal.suppress="),
    ],
)
def test_numbers_without_sense_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Proposal(**options)


@pytest.mark.parametrize("kind", [Ancestral, Refine])
def test_an_order_of_ends_is_refused_where_slots_have_none(kind: Any) -> None:
    with pytest.raises(ValueError, match=rf"end_last=true puts slots in an order, and {kind.__name__} has none"):
        kind(proposal=Proposal(end_last=True))
