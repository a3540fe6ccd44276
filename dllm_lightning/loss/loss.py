"""What a loss is, and the one place where a mean is taken.

A loss gives nats per asked slot. What they are divided by is decided here, once, as a pair of sums that add up over
micro-batches and ranks: the mean over the whole global batch is sum(weight · loss) / sum(total), however it was cut up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dllm_lightning.process import Process
from dllm_lightning.types import Corrupted, Slots

Per = Literal["token", "sequence", "batch"]


class Share(NamedTuple):
    """A batch's part in a global mean: the weight of each asked slot, and what the batch adds to the divisor."""

    weight: Float[Tensor, " N"]
    total: Float[Tensor, ""]


@dataclass(frozen=True)
class Objective:
    """What to descend, in nats per asked slot, and what one unit of its mean is.

    `per` token: every slot weighs the same, so long answers weigh more. `per` sequence: every document weighs the same.
    `per` batch: the sum over a document's slots, averaged over documents, so the number grows with their length.
    Raises ValueError for any other `per`.
    """

    per: Per = "token"

    accepts: ClassVar[tuple[type[Process], ...]] = (Process,)
    """The processes this loss makes sense for."""

    def __post_init__(self) -> None:
        if self.per not in get_args(Per):
            raise ValueError(f"loss.per={self.per!r} is no unit of a mean: choose one of {', '.join(get_args(Per))}.")

    def refuses(self, process: Process) -> str | None:
        """Why this loss has no meaning under a process that it accepts by type; None if it has."""
        return None

    def counted(self, batch: Corrupted) -> Bool[Tensor, "B L"]:
        """The slots that a mean runs over. A bound is about all editable slots, and is divided by them."""
        return batch.clean.editable

    def share(self, batch: Corrupted) -> Share:
        """This batch's part in the global mean (see `per`)."""
        per_document = batch.clean.per_document(counted := self.counted(batch))
        documents = (batch.clean.heads() & (per_document > 0)).sum()
        shared = per_document if self.per == "sequence" else torch.ones_like(per_document)
        weight = 1.0 / shared.clamp(min=1)  # where none is counted, there are no nats either
        return Share(weight[batch.asked], (counted.sum() if self.per == "token" else documents).float())


@dataclass(frozen=True)
class Loss(Objective, ABC):
    """An objective that is told by the data alone, without a teacher."""

    @abstractmethod
    def __call__(self, log_p_x0: Float[Tensor, "N K"], slots: Slots, process: Process) -> Float[Tensor, " N"]:
        """Nats per slot."""

    def of_logits(self, logits: Float[Tensor, "N K"], slots: Slots, process: Process) -> Float[Tensor, " N"]:
        """The same nats straight from logits, by a shorter way where there is one. The logits are used up."""
        return self(process.log_p_x0(logits, slots), slots, process)


@dataclass(frozen=True)
class SurpriseLoss(Loss):
    """A loss that reads no more of the belief than how surprising the truth is."""

    def __call__(self, log_p_x0: Float[Tensor, "N K"], slots: Slots, process: Process) -> Float[Tensor, " N"]:
        return self.weighed(surprise(log_p_x0, slots), slots, process)

    def of_logits(self, logits: Float[Tensor, "N K"], slots: Slots, process: Process) -> Float[Tensor, " N"]:
        return self.weighed(-process.log_truth(logits, slots).squeeze(1), slots, process)

    @abstractmethod
    def weighed(self, surprise: Float[Tensor, " N"], slots: Slots, process: Process) -> Float[Tensor, " N"]:
        """The nats of slots whose truth has -log p(x_0) = `surprise`."""


def surprise(log_p_x0: Float[Tensor, "N K"], slots: Slots) -> Float[Tensor, " N"]:
    """-log p(x_0), the cross-entropy of each slot."""
    return -log_p_x0.gather(1, slots.x0[:, None]).squeeze(1)
