"""Which columns of a text a call computes anew (Fast-dLLM, arXiv:2505.22618; dKV-Cache, arXiv:2505.15781).

In a network that looks both ways, one new token changes the keys and values of every other slot, so whatever is kept is
a little out of date. Kept well, it hardly matters: most of what was far from the new token stays nearly what it was.
Nothing here knows how keys and values are kept (`store.py`), or for which rows (`memory.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Cache(ABC):
    """Says which columns a call computes; keys and values of the others are those of an earlier call.

    The first call of a walk computes them all, and its logits are those of no cache; so does every `refresh_every`-th
    call (null: no other). Where a text is written block by block, each block is a walk. What is computed for a row
    never depends on the rows beside it.

    Raises ValueError for a number of calls below 1.
    """

    refresh_every: int | None = None

    def __post_init__(self) -> None:
        if self.refresh_every is not None and not _is_count(self.refresh_every, 1):
            raise ValueError(
                f"cache.refresh_every={self.refresh_every!r} is no number of calls: give 1 or more, or null for the "
                f"first call of each walk alone."
            )

    @abstractmethod
    def columns(
        self, slots: Bool[Tensor, "R L"], asked: Bool[Tensor, "R L"], before: Bool[Tensor, "R L"]
    ) -> Bool[Tensor, "R L"]:
        """What each row computes, besides what is asked.

        `slots` are those that the walk may write, `asked` those in question now, `before` those that were at the last
        call.
        """


@dataclass(frozen=True)
class Prefix(Cache):
    """Everything from the first slot of the walk to the end of the row; what lies left of it is kept."""

    def columns(
        self, slots: Bool[Tensor, "R L"], asked: Bool[Tensor, "R L"], before: Bool[Tensor, "R L"]
    ) -> Bool[Tensor, "R L"]:
        return slots.cummax(1).values


@dataclass(frozen=True)
class Dual(Cache):
    """The slots of the walk alone; what lies on either side of them is kept."""

    def columns(
        self, slots: Bool[Tensor, "R L"], asked: Bool[Tensor, "R L"], before: Bool[Tensor, "R L"]
    ) -> Bool[Tensor, "R L"]:
        return slots


@dataclass(frozen=True, kw_only=True)
class Vicinity(Cache):
    """The slots of the walk, `before` columns to the left of each and `after` to its right (dInfer).

    Raises ValueError for fewer than none.
    """

    before: int = 16
    after: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("before", "after"):
            if not _is_count(getattr(self, name), 0):
                raise ValueError(f"cache.{name}={getattr(self, name)!r} is no number of columns: give 0 or more.")

    def columns(
        self, slots: Bool[Tensor, "R L"], asked: Bool[Tensor, "R L"], before: Bool[Tensor, "R L"]
    ) -> Bool[Tensor, "R L"]:
        """A column c is near a slot if there is one between c - after and c + before."""
        until = torch.nn.functional.pad(slots.long().cumsum(1), (1, 0))  # slots left of each column
        place, length = torch.arange(slots.shape[1], device=slots.device), slots.shape[1]
        first, last = (place - self.after).clamp(min=0), (place + self.before + 1).clamp(max=length)
        return until[:, last] > until[:, first]


@dataclass(frozen=True)
class Delayed(Cache):
    """The slots in question, and those that have just been written: these once more, and never again (dKV-Cache).

    A token's first keys and values say what the slot was while it was hidden; one call later they say what it is. A
    slot counts as written when it is in question no longer, so a walk that writes over slots without asking about them,
    before or after, must not be given this cache. No sampler here is one.
    """

    def columns(
        self, slots: Bool[Tensor, "R L"], asked: Bool[Tensor, "R L"], before: Bool[Tensor, "R L"]
    ) -> Bool[Tensor, "R L"]:
        return asked | before


def nothing() -> None:
    """No cache: every call computes every column."""


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
