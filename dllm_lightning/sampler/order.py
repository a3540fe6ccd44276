"""Which slots come first when a text is revealed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Judged:
    """The slots in question, as orders and paces see them: a belief, and the probability of what is proposed."""

    belief: Float[Tensor, "N K"]
    sure: Float[Tensor, " N"]

    @cached_property
    def nats(self) -> Float[Tensor, " N"]:
        """The entropy of the belief."""
        return entropy(self.belief)


@dataclass(frozen=True)
class Order(ABC):
    """A rank among the slots in question: the higher, the sooner; among equals the one further left."""

    @abstractmethod
    def rank(self, judged: Judged, generator: torch.Generator | None) -> Float[Tensor, " N"]:
        """The rank of each slot."""


@dataclass(frozen=True)
class Surest(Order):
    """The slots whose proposed token the network believes in most (low-confidence remasking in LLaDA)."""

    def rank(self, judged: Judged, generator: torch.Generator | None) -> Float[Tensor, " N"]:
        return judged.sure


@dataclass(frozen=True)
class Margin(Order):
    """The slots whose most probable token is furthest ahead of the second (arXiv:2502.06768; Dream: `topk_margin`)."""

    def rank(self, judged: Judged, generator: torch.Generator | None) -> Float[Tensor, " N"]:
        first, second = judged.belief.topk(2, dim=-1).values.float().exp().unbind(-1)
        return first - second


@dataclass(frozen=True)
class LeastEntropy(Order):
    """The slots whose belief has the least entropy (`entropy` in Dream)."""

    def rank(self, judged: Judged, generator: torch.Generator | None) -> Float[Tensor, " N"]:
        return -judged.nats


@dataclass(frozen=True)
class Shuffled(Order):
    """Any slots, whatever the network believes: as in the corruption itself."""

    def rank(self, judged: Judged, generator: torch.Generator | None) -> Float[Tensor, " N"]:
        return torch.rand(judged.sure.shape, generator=generator, device=judged.sure.device)


@dataclass(frozen=True)
class LeftToRight(Order):
    """The slots in reading order: all are equal, and the one further left comes first."""

    def rank(self, judged: Judged, generator: torch.Generator | None) -> Float[Tensor, " N"]:
        return torch.zeros_like(judged.sure)


def entropy(log_p: Float[Tensor, "N K"]) -> Float[Tensor, " N"]:
    """In nats, in float32 at least."""
    log_p = log_p.float()
    return -(log_p.exp() * log_p.clamp(min=torch.finfo(log_p.dtype).min)).sum(-1)  # 0 · log 0 is 0


def foremost(rank: Float[Tensor, "B L"], at: Bool[Tensor, "B L"], quota: Int[Tensor, " B"]) -> Bool[Tensor, "B L"]:
    """In each row the `quota` slots of `at` with the highest rank; among equals the one further left."""
    return at & (place(rank, at) < quota[:, None])


def place(rank: Float[Tensor, "B L"], at: Bool[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    """The place of each slot of `at` among those of its row, from 0 for the highest rank; the others come after."""
    return inverse(lined_up(rank, at))


def lined_up(rank: Float[Tensor, "B L"], at: Bool[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    """The columns of each row, those of `at` first, by descending rank."""
    rank = rank.clamp(min=torch.finfo(rank.dtype).min).masked_fill(~at, -torch.inf)
    return rank.argsort(dim=1, descending=True, stable=True)


def inverse(order: Int[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    return torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
