"""What is taken back of a text that is being revealed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from dllm_lightning.sampler.checks import check_share
from dllm_lightning.sampler.order import foremost

Rule = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(rank of each slot that was asked (B L), shown before, chosen now (B L)) -> the slots that are shown from now on."""


@dataclass(frozen=True)
class Undo(ABC):
    """Decides after each step which slots stay written. What is taken back is hidden again, and in question again."""

    reconsiders: ClassVar[bool] = False
    """Whether the network is asked about written slots as well, so that these have a rank."""

    @abstractmethod
    def rule(self, editable: Bool[Tensor, "B L"], generator: torch.Generator | None) -> Rule:
        """The rule of one walk."""


@dataclass(frozen=True)
class Never(Undo):
    """What is written stays."""

    def rule(self, editable: Bool[Tensor, "B L"], generator: torch.Generator | None) -> Rule:
        return lambda rank, shown, chosen: shown | chosen


@dataclass(frozen=True)
class Replan(Undo):
    """Which slots are shown is decided anew at each step, among all of them; only their number grows.

    A written token ranks by what the network believes of it now, a hidden slot by its proposal; as many of the foremost
    are shown as the pace wants, and a written one that is not among them is hidden again (path planning by the denoiser
    itself, P2, arXiv:2502.03540).
    """

    reconsiders = True

    def rule(self, editable: Bool[Tensor, "B L"], generator: torch.Generator | None) -> Rule:
        return lambda rank, shown, chosen: foremost(rank, editable, (shown | chosen).sum(1))


@dataclass(frozen=True)
class AtRandom(Undo):
    """Each written slot is hidden again with probability `share` after each step, while others are hidden as well.

    No more are taken back than the step has written, so noise never rises, and none is taken back twice, so every
    walk comes to an end. Raises ValueError unless it is a share.
    """

    share: float = 0.1

    def __post_init__(self) -> None:
        check_share("undo.share", self.share)

    def rule(self, editable: Bool[Tensor, "B L"], generator: torch.Generator | None) -> Rule:
        once = torch.zeros_like(editable)

        def rule(rank: Tensor, shown: Tensor, chosen: Tensor) -> Tensor:
            after = shown | chosen
            unfinished = (editable & ~after).any(1, keepdim=True)
            chance = torch.rand(editable.shape, generator=generator, device=editable.device)
            back = foremost(-chance, shown & unfinished & ~once & (chance < self.share), chosen.sum(1))
            once.logical_or_(back)
            return after & ~back

        return rule
