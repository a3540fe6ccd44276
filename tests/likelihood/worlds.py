"""Beliefs whose bound is known exactly: by adding up every way to hide a text, and every order of writing it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from dllm_lightning.model.denoiser import NetworkDenoiser
from dllm_lightning.process import Denoiser
from dllm_lightning.types import Canvas
from tests.laws.parts import vocabulary
from tests.sampler.denoisers import LittleNetwork, plain

VOCAB = vocabulary(5)


def opinion(process: Any = None) -> NetworkDenoiser:
    """Beliefs that follow from no joint distribution, so that each order of writing gives another probability."""
    network: Any = LittleNetwork(VOCAB, seed=1)
    return NetworkDenoiser(network, process or plain(VOCAB))


def texts(rows: Tensor, given: int = 0) -> Canvas:
    """Rows whose first slots are given."""
    editable = (torch.arange(rows.shape[1]) >= given).expand(rows.shape)
    return Canvas(rows, editable.clone(), torch.ones_like(rows))


def surprises(denoiser: Denoiser, canvas: Canvas) -> dict[tuple[int, ...], Tensor]:
    """-log p of each hidden token of one text, for every set of slots that may be hidden."""
    slots = canvas.editable[0].nonzero().squeeze(1).tolist()
    found = {}
    for size in range(1, len(slots) + 1):
        for hidden in itertools.combinations(slots, size):
            at = torch.zeros_like(canvas.editable)
            at[0, list(hidden)] = True
            x_t = torch.where(at, VOCAB.mask_id, canvas.ids)
            t = torch.tensor([size / len(slots)])
            belief = denoiser(x_t, t, canvas.segment, at)
            found[hidden] = -belief.gather(1, canvas.ids[at][:, None]).squeeze(1)
    return found


def by_counts(denoiser: Denoiser, canvas: Canvas) -> float:
    """The bound: each number l of hidden tokens alike, and each set of l tokens, weighed by A / l."""
    all_of_them, length = surprises(denoiser, canvas), int(canvas.editable.sum())
    return math.fsum(
        float(nats.sum()) / len(hidden) / math.comb(length, len(hidden)) for hidden, nats in all_of_them.items()
    )


def by_orders(denoiser: Denoiser, canvas: Canvas) -> float:
    """The chain of conditionals, averaged over all orders of writing."""
    all_of_them = surprises(denoiser, canvas)
    orders = [*itertools.permutations(canvas.editable[0].nonzero().squeeze(1).tolist())]
    total = 0.0
    for order in orders:
        for place in range(len(order)):
            hidden = tuple(sorted(order[place:]))
            total += float(all_of_them[hidden][hidden.index(order[place])])
    return total / len(orders)
