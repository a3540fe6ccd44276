"""Revealing a masked text: which slots, how many at a time, with what confidence, and what is taken back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dllm_lightning.model.denoiser import NetworkDenoiser
from dllm_lightning.sampler import (
    AtRandom,
    Even,
    LeastEntropy,
    LeftToRight,
    Margin,
    Proposal,
    Replan,
    Reveal,
    Scheduled,
    Several,
    Shuffled,
    Threshold,
)
from dllm_lightning.types import Canvas, Step
from tests.laws.odds import SURPRISING, chi_square
from tests.laws.parts import seeded, vocabulary
from tests.sampler.denoisers import Fixed, Joint, LittleNetwork, Oracle, blank, plain, row_of

VOCAB = vocabulary(11)
PROCESS = plain(VOCAB)
ORDERS = pytest.mark.parametrize("order", [Reveal().order, Shuffled()], ids=["surest", "shuffled"])


def network(seed: int = 0) -> NetworkDenoiser:
    return NetworkDenoiser(LittleNetwork(VOCAB, seed), PROCESS)  # type: ignore[arg-type]


def walk(sampler: Reveal, denoiser: Any, canvas: Canvas, seed: int = 0) -> list[Step]:
    return list(sampler.trajectory(denoiser, canvas, seeded(seed)))


def reveals(steps: list[Step]) -> list[list[int]]:
    """How many slots each step writes in each row."""
    return [step.changed.sum(1).tolist() for step in steps]


def places(steps: list[Step]) -> list[list[int]]:
    """The columns that each step writes in the first row."""
    return [step.changed[0].nonzero().squeeze(-1).tolist() for step in steps]


def the_original_loop(seed: int, canvas: Canvas, tokens: list[int]) -> list[tuple[int, int]]:
    """(slot, token) as written: softmax everywhere, the mask forbidden, the most probable `tokens` of masked slots."""
    network, ids, written = LittleNetwork(VOCAB, seed), canvas.ids.clone(), []
    for count in tokens:
        everywhere = torch.arange(ids.shape[1])
        logits = network(ids, torch.zeros(ids.shape), canvas.segment, everywhere)
        logits[:, VOCAB.mask_id] = logits[:, VOCAB.length :] = -torch.inf
        confidence, token = logits.float().softmax(-1).max(-1)
        confidence[ids[0] != VOCAB.mask_id] = -torch.inf
        for slot in confidence.topk(count).indices.tolist():
            ids[0, slot] = token[slot]
            written.append((slot, int(token[slot])))
    return written


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("sampler", "tokens"),
    [
        (Reveal(), [1] * 10),
        (Reveal(steps=10), [1] * 10),
        (Reveal(steps=4), [3, 3, 2, 2]),
        (Reveal(steps=1), [10]),
        (Reveal(steps=99), [1] * 10),
        (Reveal(pace=Several(4)), [4, 4, 2]),
        (Reveal(pace=Several(99)), [10]),
        (Reveal(pace=Threshold(1.0)), [1] * 10),
        (Reveal(pace=Threshold(0.0)), [10]),
    ],
    ids=str,
)
def test_greedy_confidence_is_the_original_loop_token_for_token(sampler: Reveal, tokens: list[int], seed: int) -> None:
    canvas, written = blank(10, seed=seed), []
    for step, count in zip(walk(sampler, network(seed), canvas), tokens, strict=True):
        changed = step.changed[0].nonzero().squeeze(-1)
        assert len(changed) == count
        surest_first = changed[step.confidence[0, changed].argsort(descending=True)]
        written += [(int(slot), int(step.x[0, slot])) for slot in surest_first]
    assert written == the_original_loop(seed, canvas, tokens)


@ORDERS
def test_each_row_shares_out_its_own_slots_larger_shares_first(order: Any) -> None:
    steps = walk(Reveal(4, order), network(), blank(10, 3, 0, 4))
    assert reveals(steps) == [[3, 1, 0, 1], [3, 1, 0, 1], [2, 1, 0, 1], [2, 0, 0, 1]]


@ORDERS
def test_a_fixed_pace_ends_in_each_row_with_what_is_left(order: Any) -> None:
    assert reveals(walk(Reveal(order=order, pace=Several(4)), network(), blank(10, 3))) == [[4, 3], [4, 0], [2, 0]]


@ORDERS
def test_without_a_pace_every_step_writes_one_token_in_each_row(order: Any) -> None:
    assert reveals(walk(Reveal(order=order), network(), blank(3, 1))) == [[1, 1], [1, 0], [1, 0]]


@ORDERS
@pytest.mark.parametrize("pace", [Even(), Scheduled()], ids=str)
def test_more_steps_than_slots_waste_no_network_call(order: Any, pace: Any) -> None:
    denoiser = network()
    assert len(walk(Reveal(50, order, pace), denoiser, blank(4, 2))) == denoiser.calls == 4


@pytest.mark.parametrize(
    "sampler",
    [
        Reveal(),
        Reveal(steps=3),
        Reveal(pace=Several(2)),
        Reveal(pace=Threshold(0.3)),
        Reveal(undo=Replan()),
        Reveal(order=Margin()),
        Reveal(order=LeastEntropy()),
        Reveal(3, pace=Scheduled()),
    ],
    ids=str,
)
def test_rows_of_a_ragged_batch_are_written_as_they_would_be_alone(sampler: Reveal) -> None:
    canvas = blank(7, 2, 11, 1)
    together = sampler.sample(network(), canvas)
    for index in range(4):
        alone = sampler.sample(network(), row_of(canvas, index))
        assert torch.equal(together[index, canvas.segment[index] > 0], alone[0])


def test_among_equally_sure_slots_the_one_further_left_comes_first() -> None:
    log_p = torch.full((6, VOCAB.size), -torch.inf)
    log_p[:, 3:5] = torch.tensor([0.25, 0.75]).log()
    for order in (Reveal().order, Margin(), LeastEntropy(), LeftToRight()):
        steps = walk(Reveal(order=order, pace=Several(2)), Fixed(log_p, PROCESS), blank(6, prompt=0))
        assert places(steps) == [[0, 1], [2, 3], [4, 5]]


def test_orders_disagree_where_they_should() -> None:
    """Surest: .60 before .55 before .50. Margin: .50 over .01 comes first. Entropy: what has one rival comes first."""
    log_p = torch.full((3, VOCAB.size), -torch.inf)
    log_p[0, :2] = torch.tensor([0.60, 0.40]).log()
    log_p[1, :3] = torch.tensor([0.55, 0.44, 0.01]).log()
    log_p[2, :9] = torch.tensor([0.50, *[0.0625] * 8]).log()
    believed, canvas = Fixed(log_p, PROCESS), blank(3, prompt=0)
    told = {type(order): places(walk(Reveal(order=order), believed, canvas)) for order in (Margin(), LeastEntropy())}
    assert places(walk(Reveal(), believed, canvas)) == [[0], [1], [2]]
    assert told == {Margin: [[2], [0], [1]], LeastEntropy: [[0], [1], [2]]}
    backwards = Fixed(log_p.flip(0), PROCESS)
    assert places(walk(Reveal(order=LeftToRight()), backwards, canvas)) == [[0], [1], [2]]


@ORDERS
def test_confidence_is_the_belief_before_any_temperature(order: Any) -> None:
    log_p = torch.randn(5, VOCAB.size, generator=seeded(1)).log_softmax(-1)
    sampler = Reveal(order=order, proposal=Proposal(3.0), pace=Several(2))
    for step in walk(sampler, Fixed(log_p, PROCESS), blank(5, prompt=0)):
        believed = log_p.exp().gather(1, step.x[0][:, None]).squeeze(1)
        assert_close(step.confidence[0], torch.where(step.changed[0], believed, 0.0))


def test_random_order_takes_every_order_equally_often() -> None:
    rows = 3000
    canvas = blank(*[3] * rows, prompt=0)
    steps = walk(Reveal(order=Shuffled()), Oracle(torch.zeros_like(canvas.ids), PROCESS), canvas)
    first, second = (step.changed.long().argmax(1) for step in steps[:2])
    orders = torch.bincount(first * 3 + second, minlength=9)
    expected = (1 - torch.eye(3)).flatten() * rows / 6
    assert chi_square(orders, expected) < SURPRISING


def test_random_order_with_exact_conditionals_draws_from_the_joint() -> None:
    p: Tensor = torch.rand(3, 3, 3, generator=seeded(3), dtype=torch.float64) ** 4
    p /= p.sum()
    rows, vocab = 6000, vocabulary(5)
    joint = Joint(p, plain(vocab))
    sampler = Reveal(order=Shuffled(), proposal=Proposal(1.0))
    texts = sampler.sample(joint, blank(*[3] * rows, prompt=0, vocab=vocab), seeded(4))
    assert chi_square(joint.counts(texts), p * rows) < SURPRISING


def test_a_step_tells_the_time_at_which_so_much_is_hidden() -> None:
    steps = walk(Reveal(steps=4), network(), blank(8, 8))
    assert [step.t for step in steps] == [1.0, 0.75, 0.5, 0.25] and [step.s for step in steps] == [0.75, 0.5, 0.25, 0.0]


def test_replanning_hides_what_others_have_overtaken() -> None:
    """Two slots look surest at first; once one is written, the belief in it falls below that in the third."""

    class Fickle(Fixed):
        def table(self, x_t: Tensor, t: Tensor, at: Tensor) -> Tensor:
            written = x_t[0, 0] != VOCAB.mask_id
            p = torch.tensor([0.3 if written else 0.9, 0.6, 0.5])[:, None]
            return torch.cat([p, (1 - p) / 2, (1 - p) / 2, torch.zeros(3, VOCAB.size - 3)], 1).log()[at[0]]

    steps = walk(Reveal(undo=Replan()), Fickle(torch.empty(0), PROCESS), blank(3, prompt=0))
    assert [(step.x[0] != VOCAB.mask_id).tolist() for step in steps] == [
        [True, False, False],
        [False, True, True],
        [True, True, True],
    ]


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_slots_are_taken_back_at_random_each_once_and_no_more_than_are_written(share: float) -> None:
    canvas = blank(*[12] * 50, prompt=0)
    back = torch.zeros_like(canvas.ids)
    hidden = canvas.editable.sum(1)
    for step in walk(Reveal(pace=Several(2), undo=AtRandom(share)), Oracle(canvas.ids * 0, PROCESS), canvas):
        back += step.changed & (step.x == VOCAB.mask_id)
        before, hidden = hidden, (step.x == VOCAB.mask_id).sum(1)
        assert (hidden <= before).all()
    assert back.max() == 1 and back.sum() > 50 * 12 * share / 3 and (hidden == 0).all()
    assert not walk(Reveal(undo=AtRandom(0.0)), network(), blank(4))[0].changed[0, 4:].all()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 0}, "sampler.steps=0"),
        ({"steps": 2, "pace": Several(2)}, "leave sampler.steps null"),
    ],
)
def test_a_pace_without_sense_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Reveal(**options)
