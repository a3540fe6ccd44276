"""Flat cross-entropy on the hidden slots: BERT's loss, and the quickest teacher."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from dllm_lightning.loss.loss import SurpriseLoss
from dllm_lightning.process import MaskedDiffusion, Process
from dllm_lightning.types import Corrupted, Slots


@dataclass(frozen=True)
class MaskedCE(SurpriseLoss):
    """-log p(x_0) at every hidden slot, all weighing the same, divided by the number of hidden slots.

    It bounds nothing: against the bound it favours the noisy levels, where most slots are hidden. In exchange its
    gradient is calm, and small models learn several times faster from it than from 1/t weights.
    """

    accepts: ClassVar[tuple[type[Process], ...]] = (MaskedDiffusion,)

    def weighed(self, surprise: Float[Tensor, " N"], slots: Slots, process: Process) -> Float[Tensor, " N"]:
        return surprise

    def counted(self, batch: Corrupted) -> Bool[Tensor, "B L"]:
        return batch.asked
