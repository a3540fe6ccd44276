"""Which slots come first when a masked text is revealed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@runtime_checkable
class Order(Protocol):
    """A rank among the slots in question: the higher, the sooner."""

    def __call__(self, confidence: Float[Tensor, " N"], generator: torch.Generator | None) -> Float[Tensor, " N"]: ...


@dataclass(frozen=True)
class Surest:
    """The slots whose proposed token the network believes in most (low-confidence remasking in LLaDA)."""

    def __call__(self, confidence: Float[Tensor, " N"], generator: torch.Generator | None) -> Float[Tensor, " N"]:
        return confidence


@dataclass(frozen=True)
class Shuffled:
    """Any slots, whatever the network believes: as in the corruption itself."""

    def __call__(self, confidence: Float[Tensor, " N"], generator: torch.Generator | None) -> Float[Tensor, " N"]:
        return torch.rand(confidence.shape, generator=generator, device=confidence.device)


def foremost(priority: Float[Tensor, " N"], at: Bool[Tensor, "B L"], quota: Int[Tensor, " B"]) -> Bool[Tensor, "B L"]:
    """In each row the `quota` slots of `at` with the highest priority; among equals the one further left."""
    scores = torch.full(at.shape, -torch.inf, device=at.device, dtype=priority.dtype).masked_scatter_(at, priority)
    order = scores.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(at.shape[1], device=at.device).expand_as(order))
    return at & (rank < quota[:, None])
