"""Writing down the surest slots, or any slots: which, how many at a time, and with what confidence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dllm_lightning.model.denoiser import NetworkDenoiser
from dllm_lightning.sampler import Confidence, RandomOrder, Reveal
from dllm_lightning.types import Canvas, Step
from tests.laws.odds import SURPRISING, chi_square
from tests.laws.parts import seeded, vocabulary
from tests.sampler.denoisers import Fixed, Joint, LittleNetwork, Oracle, blank, plain, row_of

VOCAB = vocabulary(11)
PROCESS = plain(VOCAB)
BOTH = pytest.mark.parametrize("kind", [Confidence, RandomOrder])


def network(seed: int = 0) -> NetworkDenoiser:
    return NetworkDenoiser(LittleNetwork(VOCAB, seed), PROCESS)  # type: ignore[arg-type]


def walk(sampler: Reveal, denoiser: Any, canvas: Canvas, seed: int = 0) -> list[Step]:
    return list(sampler.trajectory(denoiser, canvas, seeded(seed)))


def reveals(steps: list[Step]) -> list[list[int]]:
    """How many slots each step writes in each row."""
    return [step.changed.sum(1).tolist() for step in steps]


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
        (Confidence(), [1] * 10),
        (Confidence(steps=10), [1] * 10),
        (Confidence(steps=4), [3, 3, 2, 2]),
        (Confidence(steps=1), [10]),
        (Confidence(steps=99), [1] * 10),
        (Confidence(tokens_per_step=4), [4, 4, 2]),
        (Confidence(tokens_per_step=99), [10]),
    ],
    ids=str,
)
def test_greedy_confidence_is_the_original_loop_token_for_token(
    sampler: Confidence, tokens: list[int], seed: int
) -> None:
    canvas, written = blank(10, seed=seed), []
    for step, count in zip(walk(sampler, network(seed), canvas), tokens, strict=True):
        changed = step.changed[0].nonzero().squeeze(-1)
        assert len(changed) == count
        surest_first = changed[step.confidence[0, changed].argsort(descending=True)]
        written += [(int(slot), int(step.x[0, slot])) for slot in surest_first]
    assert written == the_original_loop(seed, canvas, tokens)


@BOTH
def test_each_row_shares_out_its_own_slots_larger_shares_first(kind: type[Reveal]) -> None:
    canvas = blank(10, 3, 0, 4)
    steps = walk(kind(steps=4), network(), canvas)
    assert reveals(steps) == [[3, 1, 0, 1], [3, 1, 0, 1], [2, 1, 0, 1], [2, 0, 0, 1]]


@BOTH
def test_a_fixed_pace_ends_in_each_row_with_what_is_left(kind: type[Reveal]) -> None:
    assert reveals(walk(kind(tokens_per_step=4), network(), blank(10, 3))) == [[4, 3], [4, 0], [2, 0]]


@BOTH
def test_without_a_pace_every_step_writes_one_token_in_each_row(kind: type[Reveal]) -> None:
    assert reveals(walk(kind(), network(), blank(3, 1))) == [[1, 1], [1, 0], [1, 0]]


@BOTH
def test_more_steps_than_slots_waste_no_network_call(kind: type[Reveal]) -> None:
    denoiser = network()
    assert len(walk(kind(steps=50), denoiser, blank(4, 2))) == denoiser.calls == 4


@pytest.mark.parametrize("sampler", [Confidence(), Confidence(steps=3), Confidence(tokens_per_step=2)], ids=str)
def test_rows_of_a_ragged_batch_are_written_as_they_would_be_alone(sampler: Confidence) -> None:
    canvas = blank(7, 2, 11, 1)
    together = sampler.sample(network(), canvas)
    for index in range(4):
        alone = sampler.sample(network(), row_of(canvas, index))
        assert torch.equal(together[index, canvas.segment[index] > 0], alone[0])


def test_among_equally_sure_slots_the_one_further_left_comes_first() -> None:
    log_p = torch.full((6, VOCAB.size), -torch.inf)
    log_p[:, 3:5] = torch.tensor([0.25, 0.75]).log()
    steps = walk(Confidence(tokens_per_step=2), Fixed(log_p, PROCESS), blank(6, prompt=0))
    assert [step.changed[0].nonzero().squeeze(-1).tolist() for step in steps] == [[0, 1], [2, 3], [4, 5]]


@BOTH
def test_confidence_is_the_belief_before_any_temperature(kind: type[Reveal]) -> None:
    log_p = torch.randn(5, VOCAB.size, generator=seeded(1)).log_softmax(-1)
    steps = walk(kind(temperature=3.0, tokens_per_step=2), Fixed(log_p, PROCESS), blank(5, prompt=0))
    for step in steps:
        believed = log_p.exp().gather(1, step.x[0][:, None]).squeeze(1)
        assert_close(step.confidence[0], torch.where(step.changed[0], believed, 0.0))


@BOTH
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_a_temperature_draws_from_the_sharpened_beliefs(kind: type[Reveal], temperature: float) -> None:
    log_p, rows = torch.full((1, VOCAB.size), -torch.inf), 4000
    log_p[0, :5] = torch.tensor([0.5, 0.3, 0.1, 0.08, 0.02]).log()
    canvas = blank(*[1] * rows, prompt=0)
    tokens = kind(temperature=temperature).sample(Fixed(log_p, PROCESS), canvas, seeded(2)).flatten()
    expected = (log_p[0] / temperature).softmax(-1) * rows
    assert chi_square(torch.bincount(tokens, minlength=VOCAB.size), expected) < SURPRISING


def test_random_order_takes_every_order_equally_often() -> None:
    rows = 3000
    canvas = blank(*[3] * rows, prompt=0)
    steps = walk(RandomOrder(), Oracle(torch.zeros_like(canvas.ids), PROCESS), canvas)
    first, second = (step.changed.long().argmax(1) for step in steps[:2])
    orders = torch.bincount(first * 3 + second, minlength=9)
    expected = (1 - torch.eye(3)).flatten() * rows / 6
    assert chi_square(orders, expected) < SURPRISING


def test_random_order_with_exact_conditionals_draws_from_the_joint() -> None:
    p: Tensor = torch.rand(3, 3, 3, generator=seeded(3), dtype=torch.float64) ** 4
    p /= p.sum()
    rows, vocab = 6000, vocabulary(5)
    joint = Joint(p, plain(vocab))
    texts = RandomOrder(temperature=1.0).sample(joint, blank(*[3] * rows, prompt=0, vocab=vocab), seeded(4))
    assert chi_square(joint.counts(texts), p * rows) < SURPRISING


def test_a_step_tells_the_time_at_which_so_much_is_hidden() -> None:
    steps = walk(Confidence(steps=4), network(), blank(8, 8))
    assert [step.t for step in steps] == [1.0, 0.75, 0.5, 0.25] and [step.s for step in steps] == [0.75, 0.5, 0.25, 0.0]


@BOTH
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 0}, "sampler.steps=0"),
        ({"tokens_per_step": -1}, "sampler.tokens_per_step=-1"),
        ({"steps": 2, "tokens_per_step": 2}, "leave one of them null"),
        ({"temperature": -0.5}, "sampler.temperature=-0.5"),
        ({"temperature": float("nan")}, "sampler.temperature=nan"),
    ],
)
def test_a_pace_or_temperature_without_sense_is_refused(kind: type[Reveal], options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        kind(**options)
