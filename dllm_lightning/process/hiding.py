"""Which slots a masked corruption hides, and what stands there instead.

Three rules choose the slots. `Bernoulli` is the diffusion of the papers: each slot alone, with probability
1 - alpha(t). `UniformCount` hides exactly l slots with l uniform on 1..n: LLaDA's likelihood estimator
(arXiv:2502.09992, appendix B), the same bound with less variance. `FloorCount` hides the floor of ratio times n: a
training recipe, no diffusion.
`Replace` says what a hidden slot shows: a mask always, or BERT's mixture.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_lightning.noise import NoiseSchedule
from dllm_lightning.process.draws import Draws
from dllm_lightning.types import Canvas, positions


class Hiding(ABC):
    """Chooses the slots to hide at time t."""

    @abstractmethod
    def choose(
        self, canvas: Canvas, t: Float[Tensor, "B L"], schedule: NoiseSchedule, draws: Draws
    ) -> tuple[Bool[Tensor, "B L"], Float[Tensor, "B L"]]:
        """The hidden slots, and the time that belongs to the share that was hidden."""

    def mask_ratio(self, t: Float[Tensor, "*n"], schedule: NoiseSchedule) -> Float[Tensor, "*n"]:
        """The share of a document that is hidden at the time which `choose` returned."""
        return schedule.mask_ratio(t)

    @abstractmethod
    def weight(self, t: Float[Tensor, " N"], schedule: NoiseSchedule) -> Float[Tensor, " N"]:
        """The factor of -log p that makes the expectation over hidden slots the bound."""

    @abstractmethod
    def why_no_bound(self, schedule: NoiseSchedule) -> str | None:
        """Why no bound belongs to this rule under this schedule; None if one does."""


@dataclass(frozen=True)
class Bernoulli(Hiding):
    """Each slot by itself, with probability 1 - alpha(t)."""

    def choose(
        self, canvas: Canvas, t: Float[Tensor, "B L"], schedule: NoiseSchedule, draws: Draws
    ) -> tuple[Bool[Tensor, "B L"], Float[Tensor, "B L"]]:
        return canvas.editable & (draws.uniform(canvas) < schedule.mask_ratio(t)), t

    def weight(self, t: Float[Tensor, " N"], schedule: NoiseSchedule) -> Float[Tensor, " N"]:
        """-alpha' / (1 - alpha): 1/t on the straight line."""
        return -schedule.alpha_prime(t) / schedule.mask_ratio(t)

    def why_no_bound(self, schedule: NoiseSchedule) -> str | None:
        if schedule.complete:
            return None
        start, end = schedule.mask_ratio(torch.tensor([0.0, 1.0])).tolist()
        return f"its mask ratio runs from {start:.4g} to {end:.4g} and not from 0 to 1"


@dataclass(frozen=True)
class UniformCount(Hiding):
    """Exactly l of the n editable slots of a document, l uniform on 1..n (between the bounds of the schedule).

    The clock reads l/n, so a loss is weighted by n/l whatever the schedule: the bound does not depend on its curve.
    """

    def choose(
        self, canvas: Canvas, t: Float[Tensor, "B L"], schedule: NoiseSchedule, draws: Draws
    ) -> tuple[Bool[Tensor, "B L"], Float[Tensor, "B L"]]:
        n = canvas.per_document(canvas.editable)
        share = schedule.min_ratio + (schedule.max_ratio - schedule.min_ratio) * t.double()
        # Half a billionth: 0.07 * 100 is 7.000000000000001 in binary, and the count meant is 7.
        count = (share * n - 5e-10).ceil().long().clamp(min=1).minimum(n)
        hidden = _exactly(count, canvas, draws)
        ratio = count / n.clamp(min=1)
        return hidden, torch.where(canvas.segment > 0, ratio, 0.0).float()

    def mask_ratio(self, t: Float[Tensor, "*n"], schedule: NoiseSchedule) -> Float[Tensor, "*n"]:
        return t

    def weight(self, t: Float[Tensor, " N"], schedule: NoiseSchedule) -> Float[Tensor, " N"]:
        return 1.0 / t

    def why_no_bound(self, schedule: NoiseSchedule) -> str | None:
        if (schedule.min_ratio, schedule.max_ratio) == (0.0, 1.0):
            return None
        return f"its counts are bounded between {schedule.min_ratio} and {schedule.max_ratio} of the answer"


@dataclass(frozen=True)
class FloorCount(Hiding):
    """Exactly floor(ratio n) of the n editable slots of a document, at the schedule's ratio; none if that is 0."""

    def choose(
        self, canvas: Canvas, t: Float[Tensor, "B L"], schedule: NoiseSchedule, draws: Draws
    ) -> tuple[Bool[Tensor, "B L"], Float[Tensor, "B L"]]:
        ratio = schedule.mask_ratio(t.double())
        # Half a billionth: 0.29 * 100 is 28.999999999999996 in binary, and the count meant is 29.
        count = (ratio * canvas.per_document(canvas.editable) + 5e-10).floor().long()
        return _exactly(count, canvas, draws), t

    def weight(self, t: Float[Tensor, " N"], schedule: NoiseSchedule) -> Float[Tensor, " N"]:
        return -schedule.alpha_prime(t) / schedule.mask_ratio(t)

    def why_no_bound(self, schedule: NoiseSchedule) -> str | None:
        return "it hides a rounded-down count of slots"


@dataclass(frozen=True)
class Replace:
    """What a hidden slot shows: `mask`, `random` (an ordinary token drawn evenly) or `keep`, as shares that sum to 1.

    BERT: 0.8, 0.1, 0.1. Only pure masks make a diffusion. Raises ValueError for shares that do not sum to 1.
    """

    mask: float = 1.0
    random: float = 0.0
    keep: float = 0.0

    def __post_init__(self) -> None:
        shares = (self.mask, self.random, self.keep)
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(
                f"process.replace has mask={self.mask}, random={self.random}, keep={self.keep}: "
                f"these are shares of the hidden slots, so they must not be negative and must sum to 1."
            )

    def apply(
        self, hidden: Bool[Tensor, "B L"], canvas: Canvas, mask_id: int, noise_ids: Int[Tensor, " V"], draws: Draws
    ) -> Int[Tensor, "B L"]:
        """The canvas as the network will see it."""
        if self.mask == 1.0:
            return torch.where(hidden, mask_id, canvas.ids)
        fate = draws.uniform(canvas)
        rank = (draws.uniform(canvas).double() * len(noise_ids)).long()
        token = noise_ids.to(rank.device)[rank]
        shown = torch.where(fate < self.mask, mask_id, torch.where(fate < self.mask + self.random, token, canvas.ids))
        return torch.where(hidden, shown, canvas.ids)


def _exactly(count: Int[Tensor, "B L"], canvas: Canvas, draws: Draws) -> Bool[Tensor, "B L"]:
    """A uniformly random subset of `count` editable slots in each document: those with the smallest draws."""
    # Sorted by (document, draw), the fixed slots last in each: a slot's place in its run says whether it is in.
    key = canvas.segment.double() * 2 + torch.where(canvas.editable, draws.uniform(canvas).double(), 1.5)
    order = key.argsort(dim=1, stable=True)
    place = positions(canvas.segment.gather(1, order))
    rank = torch.empty_like(place).scatter_(1, order, place)
    return canvas.editable & (rank < count)
