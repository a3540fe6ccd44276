"""Flat cross-entropy under uniform noise: say what the replaced tokens were."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dllm_lightning.loss.loss import SurpriseLoss
from dllm_lightning.process import Process, UniformDiffusion
from dllm_lightning.types import Corrupted, Slots


@dataclass(frozen=True)
class CE(SurpriseLoss):
    """-log p(x_0) at every slot in question, all weighing the same, divided by their number.

    `slots` replaced: those that show another token than their own. The belief leaves its slot's own evidence out, for
    `UniformDiffusion.posterior` to multiply in; so this asks what masks ask, and rewards no copying. `slots` all: every
    noised slot. With little noise most of them show the truth, a network that repeats what it sees is nearly right, and
    its belief no longer leaves that evidence out.

    It bounds nothing, either way.

    Raises ValueError for another choice of `slots`.
    """

    slots: Literal["replaced", "all"] = "replaced"

    accepts: ClassVar[tuple[type[Process], ...]] = (UniformDiffusion,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.slots not in ("replaced", "all"):
            raise ValueError(f"loss.slots={self.slots!r} is no choice of slots: choose replaced or all.")

    def weighed(self, surprise: Float[Tensor, " N"], slots: Slots, process: Process) -> Float[Tensor, " N"]:
        return surprise if self.slots == "all" else torch.where(slots.x_t != slots.x0, surprise, 0.0)

    def counted(self, batch: Corrupted) -> Bool[Tensor, "B L"]:
        return batch.asked if self.slots == "all" else batch.asked & (batch.x_t != batch.clean.ids)
