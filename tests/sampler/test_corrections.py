"""What counts as written, and what as written again."""

from __future__ import annotations

import torch

from dllm_lightning.process import Process
from dllm_lightning.sampler import Corrections
from dllm_lightning.types import Step
from tests.laws.parts import vocabulary
from tests.sampler.denoisers import blank, plain, uniform

VOCAB = vocabulary(6)  # tokens 0 to 3, of which 4 is the mask
MASK = VOCAB.mask_id


def followed(process: Process, states: list[list[int]], beliefs: list[list[float]]) -> list[tuple[list[bool], int]]:
    """Which slots are written, and how many corrections there were, after each of these states."""
    x, *following = (torch.tensor([state]) for state in states)
    notes, told = Corrections(blank(x.shape[1], prompt=0, vocab=VOCAB), process), []
    for index, (state, belief) in enumerate(zip(following, beliefs, strict=True)):
        changed = state != x
        notes.note(Step(index, 1.0, 0.5, state, changed, torch.tensor([belief], dtype=torch.float32) * changed))
        told.append((notes.written[0].tolist(), int(notes.counts[0])))
        x = state
    return told


def test_a_token_that_replaces_a_written_one_is_a_correction() -> None:
    states = [[0, 1], [2, 1], [3, 1], [3, 2]]
    assert followed(uniform(VOCAB), states, [[0.9, 0], [0.8, 0], [0, 0.6]]) == [
        ([True, False], 0),
        ([True, False], 1),
        ([True, True], 1),
    ]


def test_a_token_that_noise_explains_better_is_noise() -> None:
    """Four states: what is believed less than 1/4 was drawn for no better reason than chance."""
    states = [[0, 0], [1, 2], [3, 2], [1, 2]]
    assert followed(uniform(VOCAB), states, [[0.2, 0.3], [0.1, 0], [0.5, 0]]) == [
        ([False, True], 0),
        ([False, True], 0),
        ([True, True], 0),
    ]


def test_a_slot_that_is_hidden_again_is_corrected_by_another_token_and_not_by_its_own() -> None:
    states = [[MASK, MASK], [1, 2], [MASK, MASK], [3, 2]]
    assert followed(plain(VOCAB), states, [[0.1, 0.01], [0, 0], [0.4, 0.4]]) == [
        ([True, True], 0),
        ([False, False], 0),
        ([True, True], 1),
    ]
