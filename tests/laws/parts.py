"""Every schedule and corruption there is, found by looking at the package: a new one enters the laws by existing."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

from dllm_lightning.loss import Loss
from dllm_lightning.noise import Geometric, LogLinear, NoiseSchedule, Polynomial
from dllm_lightning.process import Hiding, MaskedDiffusion, Relaxed, Replace
from dllm_lightning.types import Canvas, Vocab


def leaves(base: type) -> Iterator[Any]:
    """The concrete classes below an abstract one."""
    for child in base.__subclasses__():
        yield from leaves(child)
        if not inspect.isabstract(child):
            yield child


BOUNDS = ({}, {"min_ratio": 0.15, "max_ratio": 0.99}, {"min_ratio": 0.15, "max_ratio": 0.15})
SCHEDULES: list[NoiseSchedule] = [
    *(schedule(**bounds) for schedule in leaves(NoiseSchedule) if schedule is not Relaxed for bounds in BOUNDS),
    Relaxed(classes=11),
    Relaxed(0.01, 0.99, classes=50_368),
    LogLinear(max_ratio=0.999),
    Polynomial(power=0.5),
    Geometric(sigma_min=1e-3, sigma_max=1.0),
]
MOVING = [schedule for schedule in SCHEDULES if schedule.min_ratio < schedule.max_ratio]
COMPLETE = [schedule for schedule in SCHEDULES if schedule.complete]
HIDINGS: list[Hiding] = [hiding() for hiding in leaves(Hiding)]
MIXTURES = [Replace(), Replace(0.8, 0.1, 0.1), Replace(0.9, 0.1, 0.0), Replace(0.2, 0.7, 0.1), Replace(0.0, 1.0, 0.0)]
LOSSES: list[type[Loss]] = [loss for loss in leaves(Loss) if issubclass(MaskedDiffusion, loss.accepts)]
"""Those that masks may be trained with."""


def vocabulary(size: int, first_noise: int = 0) -> Vocab:
    """`size` logits: ordinary tokens, then `[MASK]`, then one row that no token belongs to."""
    mask_id = size - 2
    return Vocab(size, size - 1, mask_id, pad_id=0, eos_id=1, noise_ids=torch.arange(first_noise, mask_id))


def masked_processes(vocab: Vocab) -> list[MaskedDiffusion]:
    """Every schedule under every rule of hiding and every mixture of replacements."""
    return [MaskedDiffusion(vocab, *parts) for parts in itertools.product(SCHEDULES, HIDINGS, MIXTURES)]


def row(*documents: list[int], length: int, prompt: int = 0, left: int = 0) -> Canvas:
    """One packed row of documents whose first `prompt` slots are fixed, after `left` slots of padding (id 0)."""
    ids, editable, segment = [0] * left, [False] * left, [0] * left
    for number, document in enumerate(documents, start=1):
        ids += document
        editable += [place >= prompt for place in range(len(document))]
        segment += [number] * len(document)
    rest = length - len(ids)
    fields = (ids + [0] * rest, editable + [False] * rest, segment + [0] * rest)
    return Canvas(*(torch.tensor([field]) for field in fields))


def stack(*rows: Canvas) -> Canvas:
    """Rows of one length as one batch."""
    return Canvas(*(torch.cat(fields) for fields in zip(*rows, strict=True)))


def mixed_batch(vocab: Vocab, generator: torch.Generator, rows: int = 6, length: int = 32) -> Canvas:
    """Packed rows of many documents: prompts of many lengths, some without an answer, and padding left and right."""
    batch = []
    for number in range(rows):
        left = number % 3
        room, documents = length - left - number % 4, []
        while room > 0:
            size = min(int(torch.randint(1, 12, (), generator=generator)), room)
            documents.append(torch.randint(0, vocab.mask_id, (size,), generator=generator).tolist())
            room -= size
        batch.append(row(*documents, length=length, prompt=number % 4, left=left))
    return stack(*batch)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def source() -> Tensor:
    """Texts of three tokens that depend on each other: two texts in three repeat one."""
    p = torch.rand(3, 3, 3, generator=seeded(5), dtype=torch.float64) ** 3
    for token in range(3):
        p[token, token, token] += 1.5
    return p / p.sum()
