"""Rewriting what is not believed: what is written, in which order, and that it ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_lightning.model.denoiser import NetworkDenoiser
from dllm_lightning.sampler import Proposal, Refine
from dllm_lightning.types import Canvas, Step
from tests.laws.odds import SURPRISING, chi_square
from tests.laws.parts import seeded, vocabulary
from tests.sampler.denoisers import Cavity, Fixed, LittleNetwork, Oracle, Table, blank, row_of, uniform

VOCAB = vocabulary(11)
PROCESS = uniform(VOCAB)


def network(seed: int = 0) -> NetworkDenoiser:
    return NetworkDenoiser(LittleNetwork(VOCAB, seed), PROCESS)  # type: ignore[arg-type]


def walk(sampler: Refine, denoiser: Any, canvas: Canvas, seed: int = 0, draft: Tensor | None = None) -> list[Step]:
    return list(sampler.trajectory(denoiser, canvas, seeded(seed), draft))


class Neighbours(Table):
    """Each of two slots believes, nearly for certain, that it is what the other one is not."""

    process = PROCESS

    def __init__(self) -> None:
        self.calls = 0

    def table(self, x_t: Tensor, t: Tensor, at: Tensor) -> Tensor:
        self.calls += 1
        log_p = torch.full((*x_t.shape, VOCAB.size), -20.0)
        return log_p.scatter_(2, (1 - x_t.flip(1))[..., None], 0.0).log_softmax(-1)[at]


class Carousel(Table):
    """Believes that the token after the present one is right: there is no text it agrees with."""

    process = PROCESS

    def table(self, x_t: Tensor, t: Tensor, at: Tensor) -> Tensor:
        log_p = torch.full((*x_t.shape, VOCAB.size), -20.0)
        return log_p.scatter_(2, ((x_t + 1) % 9)[..., None], 0.0).log_softmax(-1)[at]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "options", [{"steps": 3}, {"tokens_per_step": 1}, {"proposal": Proposal(1.0)}, {"evidence": True}]
)
def test_no_token_is_ever_rewritten_with_itself(options: dict[str, Any], seed: int) -> None:
    """The bug of the loop from random tokens: its surest slot was rewritten for ever, others never."""
    canvas = blank(10, 6, seed=seed)
    x = PROCESS.prior(canvas, seeded(seed))
    for step in walk(Refine(max_steps=30, **options), network(seed), canvas, seed):
        assert torch.equal(step.changed, step.x != x)
        x = step.x


def test_one_sure_slot_does_not_keep_the_others_from_being_written() -> None:
    log_p = torch.full((6, VOCAB.size), -9.0)
    log_p[:, 4], log_p[2, 4] = 0.0, 9.0
    steps = walk(Refine(tokens_per_step=1), Fixed(log_p.log_softmax(-1), PROCESS), blank(6, prompt=0))
    assert (steps[-1].x == 4).all() and not steps[-1].changed.any()
    assert len(steps) <= 7 and sum(int(step.changed.sum()) for step in steps) <= 6


def test_the_least_believed_come_first_and_among_equals_those_further_left() -> None:
    log_p = torch.full((5, VOCAB.size), -torch.inf)
    log_p[:, :2] = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.95, 0.05], [0.9, 0.1], [0.2, 0.8]]).log()
    canvas = blank(5, prompt=0)
    steps = walk(Refine(tokens_per_step=1), Fixed(log_p, PROCESS), canvas, draft=torch.ones_like(canvas.ids))
    assert [step.changed[0].nonzero().flatten().tolist() for step in steps] == [[2], [0], [3], [1], []]
    assert steps[-1].x.tolist() == [[0, 0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("sampler", "most", "calls"),
    [
        (Refine(), [2, 1], 11),
        (Refine(steps=4), [5, 2], 5),
        (Refine(steps=1), [20, 5], 2),
        (Refine(tokens_per_step=8), [8, 8], 4),
    ],
    ids=str,
)
def test_every_row_is_written_at_its_pace_and_looked_at_once_more(sampler: Refine, most: list[int], calls: int) -> None:
    canvas = blank(20, 5)
    truth = torch.full_like(canvas.ids, 3)
    steps = walk(sampler, Oracle(truth, PROCESS), canvas, draft=torch.full_like(canvas.ids, 2))
    assert len(steps) == calls and torch.stack([step.changed.sum(1) for step in steps]).amax(0).tolist() == [
        min(quota, slots) for quota, slots in zip(most, (20, 5), strict=True)
    ]


def test_rows_that_have_settled_leave_the_work() -> None:
    canvas, asked = blank(8, 3, 5), []

    class Asked(Oracle):
        def table(self, x_t: Tensor, t: Tensor, at: Tensor) -> Tensor:
            asked.append(at.any(1).tolist())
            return super().table(x_t, t, at)

    draft = torch.full_like(canvas.ids, 2)
    draft[1] = 3
    walk(Refine(tokens_per_step=3), Asked(torch.full_like(canvas.ids, 3), PROCESS), canvas, draft=draft)
    assert asked == [[True, True, True], [True, False, True], [True, False, True], [True, False, False]]


def test_rows_of_a_ragged_batch_are_refined_as_they_would_be_alone() -> None:
    canvas = blank(7, 2, 9)
    draft = torch.where(canvas.editable, 5, canvas.ids)
    together = Refine().sample(network(), canvas, draft=draft)
    for index in range(3):
        real = canvas.segment[index] > 0
        alone = Refine().sample(network(), row_of(canvas, index), draft=draft[index : index + 1, real])
        assert torch.equal(together[index, real], alone[0])


def test_two_slots_that_wait_for_each_other_take_turns() -> None:
    """Both flip at once, back and forth, in parallel; one alone settles the matter."""
    canvas, neighbours = blank(2, prompt=0), Neighbours()
    text = Refine(steps=1, max_steps=99).sample(neighbours, canvas, draft=torch.zeros_like(canvas.ids))
    assert text.sum() == 1 and neighbours.calls <= 5


def test_no_text_comes_back() -> None:
    """Of one slot with nine states nothing is left after nine texts; of three slots the cap is the end."""
    for length, most in ((1, 9), (3, 40)):
        steps = walk(Refine(steps=1, max_steps=40), Carousel(), blank(length, prompt=0))
        states = [tuple(step.x[0].tolist()) for step in steps if step.changed.any()]
        assert len(states) == len({*states}) and len(steps) == most


@pytest.mark.parametrize(("options", "calls"), [({"steps": 5}, 20), ({"tokens_per_step": 5}, 8), ({"max_steps": 3}, 3)])
def test_what_never_settles_is_ended(options: dict[str, Any], calls: int) -> None:
    belief = torch.zeros(10, VOCAB.size).index_fill(1, torch.tensor([9, 10]), -torch.inf).log_softmax(-1)
    assert len(walk(Refine(proposal=Proposal(1.0), **options), Fixed(belief, PROCESS), blank(10, prompt=0))) == calls


def test_a_draw_that_keeps_the_token_keeps_the_slot() -> None:
    """Above temperature 0 one call is a draw from the belief at every slot, whatever stood there."""
    log_p, rows = torch.full((1, VOCAB.size), -torch.inf), 4000
    log_p[0, :3] = torch.tensor([0.5, 0.3, 0.2]).log()
    canvas = blank(*[1] * rows, prompt=0)
    sampler = Refine(proposal=Proposal(1.0), max_steps=1)
    text = sampler.sample(Fixed(log_p, PROCESS), canvas, seeded(1), torch.zeros_like(canvas.ids))
    expected = torch.tensor([0.5, 0.3, 0.2, *[0.0] * 8]) * rows
    assert chi_square(torch.bincount(text.flatten(), minlength=VOCAB.size), expected) < SURPRISING


def equal_pairs() -> Cavity:
    """Texts of six tokens: three pairs of equals, all of them equally likely, and any other a little possible."""
    p = torch.full([3] * 6, 1e-6, dtype=torch.float64)
    for a, b, c in torch.cartesian_prod(*[torch.arange(3)] * 3).tolist():
        p[a, a, b, b, c, c] = 1.0
    return Cavity(p / p.sum(), uniform(vocabulary(5)))


def test_a_corrupted_text_is_made_whole_by_a_perfect_network() -> None:
    joint, canvas = equal_pairs(), blank(6, 6, 6, prompt=0, vocab=vocabulary(5))
    draft = torch.tensor([[0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2, 2], [0, 1, 2, 1, 2, 2]])
    text = Refine(tokens_per_step=1).sample(joint, canvas, draft=draft)
    assert (text[:, 0::2] == text[:, 1::2]).all()
    assert torch.equal(text[0], draft[0]) and (text != draft).sum(1).tolist() == [0, 1, 2]


def test_from_random_tokens_a_perfect_network_writes_a_text() -> None:
    joint, canvas = equal_pairs(), blank(*[6] * 40, prompt=0, vocab=vocabulary(5))
    text = Refine(tokens_per_step=1).sample(joint, canvas, seeded(0))
    assert (text[:, 0::2] == text[:, 1::2]).all()


def test_with_evidence_a_token_stays_unless_it_is_a_likelier_mistake() -> None:
    """At noise 0.1 over 9 states, evidence weighs 9 · 0.9 / 0.1 + 1 = 82 times: 0.99 against 0.01 is more than that."""
    log_p = torch.full((2, VOCAB.size), -torch.inf)
    log_p[:, :2] = torch.tensor([[0.95, 0.05], [0.99, 0.01]]).log()
    canvas = blank(2, prompt=0)
    for evidence, text in ((False, [[0, 0]]), (True, [[1, 0]])):
        refined = Refine(noise=0.1, evidence=evidence, max_steps=1, steps=1)
        assert refined.sample(Fixed(log_p, PROCESS), canvas, draft=torch.ones_like(canvas.ids)).tolist() == text


def test_the_network_is_told_what_is_still_noise() -> None:
    """All of it at first, then the share that it disagreed with and that was not rewritten; one slot at the least."""
    told = []

    class Told(Oracle):
        def table(self, x_t: Tensor, t: Tensor, at: Tensor) -> Tensor:
            told.append(t.tolist())
            return super().table(x_t, t, at)

    canvas = blank(8, prompt=0)
    truth, wrong = torch.zeros_like(canvas.ids), torch.ones_like(canvas.ids)
    steps = walk(Refine(tokens_per_step=3, noise=0.5), Told(truth, PROCESS), canvas, draft=wrong)
    assert told == [[0.5], [5 / 8], [2 / 8], [1 / 8]]
    assert [(step.t, step.s) for step in steps] == [(0.5, 5 / 8), (5 / 8, 2 / 8), (2 / 8, 0.0), (0.0, 0.0)]
    told.clear()
    walk(Refine(), Told(truth, PROCESS), canvas)
    assert told[0] == [1.0]


def test_what_it_is_told_never_rises_again() -> None:
    """Else a network whose belief changes with the noise it is told could be sent back and forth."""
    told = []

    class Doubtful(Oracle):
        def table(self, x_t: Tensor, t: Tensor, at: Tensor) -> Tensor:
            told.append(t.item())
            self.x0 = torch.full_like(x_t, 5 if t.item() < 0.5 else 3)
            return super().table(x_t, t, at)

    canvas = blank(8, prompt=0)
    steps = walk(Refine(tokens_per_step=1), Doubtful(canvas.ids, PROCESS), canvas)
    assert told == sorted(told, reverse=True) and (steps[-1].x == 5).all()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 0}, "sampler.steps=0"),
        ({"steps": 2, "tokens_per_step": 2}, "leave one of them null"),
        ({"max_steps": 0}, "sampler.max_steps=0"),
        ({"noise": 1.5}, "sampler.noise=1.5"),
    ],
)
def test_options_without_sense_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Refine(**options)
