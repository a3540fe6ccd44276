"""How many slots are written at a step, against the rules written out as plain loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_lightning.noise import Cosine, LogLinear, NoiseSchedule
from dllm_lightning.process import MaskedDiffusion
from dllm_lightning.sampler import (
    EntropyBound,
    Even,
    Factor,
    Pace,
    Proposal,
    Reveal,
    Scheduled,
    Several,
    Shuffled,
    Threshold,
)
from tests.laws.odds import SURPRISING, chi_square
from tests.laws.parts import seeded, vocabulary
from tests.sampler.denoisers import Fixed, LittleNetwork, Oracle, blank, plain
from tests.sampler.test_reveal import PROCESS, VOCAB, network, reveals, walk

PARALLEL = (Threshold(0.2), Threshold(0.5), Factor(1.0), Factor(0.6), EntropyBound(0.5), EntropyBound(3.0))


def quotas(pace: Pace, steps: int | None, *slots: int, schedule: NoiseSchedule | None = None) -> list[list[int]]:
    process = MaskedDiffusion(VOCAB, schedule or LogLinear())
    canvas = blank(*slots)
    return reveals(walk(Reveal(steps, pace=pace), Oracle(canvas.ids * 0, process), canvas))


def test_a_schedule_reveals_what_it_says_rounding_half_to_even() -> None:
    """Of 10 slots in 4 steps: 10 · 1/4 = 2.5, 8 · 1/3 = 2.7, 5 · 1/2 = 2.5, and the rest."""
    assert quotas(Scheduled(), 4, 10) == [[2], [3], [2], [3]]
    assert quotas(Scheduled(), 4, 10, schedule=Cosine()) != quotas(Scheduled(), 4, 10)
    assert quotas(Even(), 4, 10) == [[3], [3], [2], [2]]


def test_steps_without_a_slot_are_left_out_row_by_row() -> None:
    """One slot in four steps: 0, 0, 0 (half of one is even 0) and 1. The other row goes on."""
    assert quotas(Scheduled(), 4, 1, 10) == [[1, 2], [0, 3], [0, 2], [0, 3]]
    assert quotas(Scheduled(), None, 3) == [[1], [1], [1]]


def test_a_random_number_of_slots_is_as_binomial_as_the_corruption() -> None:
    """After the first of two steps each of 3 slots is shown with probability 1/2; a step without a slot is none."""
    rows = 4000
    canvas = blank(*[3] * rows, prompt=0)
    sampler = Reveal(2, Shuffled(), Scheduled(at_random=True))
    first = walk(sampler, Oracle(canvas.ids * 0, PROCESS), canvas, seed=3)[0].changed.sum(1)
    expected = torch.tensor([0.0, 3 / 8, 3 / 8, 2 / 8]) * rows  # none at first is all at once
    assert chi_square(torch.bincount(first, minlength=4), expected) < SURPRISING


def loop_of(pace: Pace, seed: int) -> list[list[int]]:
    """The places that a rule accepts at each step on a single row, by a loop over its sorted slots."""
    canvas, net, shown = blank(10, seed=seed), LittleNetwork(VOCAB, seed), []
    ids = canvas.ids.clone()
    while (ids[0] == VOCAB.mask_id).any():
        logits = net(ids, torch.zeros(ids.shape), canvas.segment, torch.arange(ids.shape[1]))
        logits[:, VOCAB.mask_id] = logits[:, VOCAB.length :] = -torch.inf
        p = logits.float().softmax(-1)
        sure, token = p.max(-1)
        nats = -(p * p.clamp(min=1e-30).log()).sum(-1)
        slots = sorted((ids[0] == VOCAB.mask_id).nonzero().flatten().tolist(), key=lambda slot: -float(sure[slot]))
        taken = [slots[0]]
        if isinstance(pace, Threshold):
            taken = [slot for n, slot in enumerate(slots) if n == 0 or sure[slot] >= pace.threshold]
        if isinstance(pace, Factor):
            while len(taken) < len(slots) and sure[slots[len(taken)]] >= 1 - pace.factor / (len(taken) + 2):
                taken.append(slots[len(taken)])
        if isinstance(pace, EntropyBound):
            for slot in slots[1:]:
                run = nats[[*taken, slot]]
                if run.sum() - run.max() > pace.nats:
                    break
                taken.append(slot)
        ids[0, taken] = token[taken]
        shown.append(sorted(taken))
    return shown


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("pace", PARALLEL, ids=str)
def test_parallel_rules_are_their_loops_token_for_token(pace: Pace, seed: int) -> None:
    steps = walk(Reveal(pace=pace), network(seed), blank(10, seed=seed))
    assert [step.changed[0].nonzero().flatten().tolist() for step in steps] == loop_of(pace, seed)


def test_the_rules_are_told_apart() -> None:
    assert len({str([loop_of(pace, seed) for seed in range(6)]) for pace in PARALLEL}) == len(PARALLEL)


@pytest.mark.parametrize("pace", [*PARALLEL, Several(3)], ids=str)
def test_a_parallel_rule_writes_at_least_one_slot_in_each_row_and_ends(pace: Pace) -> None:
    unsure = Fixed(torch.full((9, VOCAB.size), 1 / VOCAB.size).log(), PROCESS)
    steps = walk(Reveal(pace=pace), unsure, blank(9, prompt=0))
    assert all(step.changed.any() for step in steps) and not (steps[-1].x == VOCAB.mask_id).any()
    sure = walk(Reveal(pace=pace), Oracle(torch.zeros(2, 12, dtype=torch.long), PROCESS), blank(9, 4))
    assert len(sure) == (3 if isinstance(pace, Several) else 1)


def test_counts_drawn_from_the_schedule_and_random_places_are_ancestral_sampling() -> None:
    """How many slots are written, which, and what: together the law of MDLM's posterior (chi-square, 1e5 draws)."""
    from dllm_lightning.sampler import Ancestral

    vocab, rows = vocabulary(4), 100_000
    p = torch.tensor([[0.6, 0.4], [0.1, 0.9], [0.5, 0.5]])
    log_p = torch.cat([p, torch.zeros(3, 2)], 1).log()
    canvas = blank(*[3] * rows, prompt=0, vocab=vocab)

    def after_one(sampler: Any, seed: int) -> Tensor:
        state = next(sampler.trajectory(Fixed(log_p, plain(vocab)), canvas, seeded(seed))).x
        return torch.bincount(state @ torch.tensor([9, 3, 1]), minlength=27)

    masked = torch.tensor([0.5])  # after the first of two strides
    each = [torch.cat([row * 0.5, masked]) for row in p]  # tokens 0 and 1, and the mask, 2
    expected = torch.einsum("a,b,c->abc", *each).flatten() * rows
    assert chi_square(after_one(Ancestral(2), 1), expected) < SURPRISING
    counted = after_one(Reveal(2, Shuffled(), Scheduled(at_random=True), Proposal(1.0)), 2)
    untouched = expected[26]  # a step without a slot is left out here, and then all is written at once
    full = torch.einsum("a,b,c->abc", *(torch.cat([row, torch.zeros(1)]) for row in p)).flatten()
    assert counted[26] == 0
    assert chi_square(counted[:26], (expected + untouched * full)[:26]) < SURPRISING


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        (Several, {"tokens": 0}, "sampler.pace.tokens=0"),
        (Threshold, {"threshold": 1.1}, "sampler.pace.threshold=1.1"),
        (Factor, {"factor": 0.0}, "sampler.pace.factor=0.0"),
        (EntropyBound, {"nats": -1.0}, "sampler.pace.nats=-1.0"),
    ],
)
def test_numbers_without_sense_are_refused(kind: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        kind(**options)
