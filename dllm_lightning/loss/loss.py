"""What a loss is, and the one place where a mean is taken.

A loss gives nats per asked slot. What they are divided by is decided here, once, as a pair of sums that add up over
micro-batches and ranks: the mean over the whole global batch is sum(weight · loss) / sum(total), however it was cut up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_lightning.process import Process
from dllm_lightning.types import Corrupted, Slots

Per = Literal["token", "sequence", "batch"]


class Share(NamedTuple):
    """A batch's part in a global mean: the weight of each asked slot, and what the batch adds to the divisor."""

    weight: Float[Tensor, " N"]
    total: Float[Tensor, ""]


@dataclass(frozen=True)
class Loss(ABC):
    """What to descend: nats per asked slot, and what one unit of the mean is.

    `per` token: every slot weighs the same, so long answers weigh more. `per` sequence: every document weighs the same.
    `per` batch: the sum over a document's slots, averaged over documents, so the number grows with their length.
    Raises ValueError for any other `per`.
    """

    per: Per = "token"

    accepts: ClassVar[tuple[type[Process], ...]] = (Process,)
    """The processes this loss makes sense for."""
    counts_asked: ClassVar[bool] = False
    """Whether a mean runs over the asked slots only. A bound is about all editable slots, and is divided by them."""

    def __post_init__(self) -> None:
        if self.per not in get_args(Per):
            raise ValueError(f"loss.per={self.per!r} is no unit of a mean: choose one of {', '.join(get_args(Per))}.")

    @abstractmethod
    def __call__(self, log_p_x0: Float[Tensor, "N K"], slots: Slots, process: Process) -> Float[Tensor, " N"]:
        """Nats per slot."""

    def refuses(self, process: Process) -> str | None:
        """Why this loss has no meaning under a process that it accepts by type; None if it has."""
        return None

    def reads_truth(self, process: Process) -> bool:
        """Whether the true token's column is all that is read of log_p_x0.

        Then that column may be all that is made: K = 1, and each slot's x_0 is 0, the number of its column.
        """
        return False

    def share(self, batch: Corrupted) -> Share:
        """This batch's part in the global mean (see `per`)."""
        counted = batch.asked if self.counts_asked else batch.clean.editable
        per_document = batch.clean.per_document(counted)
        documents = (batch.clean.heads() & (per_document > 0)).sum()
        weight = 1.0 / per_document if self.per == "sequence" else torch.ones_like(per_document, dtype=torch.float32)
        return Share(weight[batch.asked], (counted.sum() if self.per == "token" else documents).float())


def surprise(log_p_x0: Float[Tensor, "N K"], slots: Slots) -> Float[Tensor, " N"]:
    """-log p(x_0), the cross-entropy of each slot."""
    return -log_p_x0.gather(1, slots.x0[:, None]).squeeze(1)
