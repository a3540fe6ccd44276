"""Cross-entropy with a tamed weight: between the true bound and the flat mean."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_lightning.loss.loss import SurpriseLoss
from dllm_lightning.process import MaskedDiffusion, Process
from dllm_lightning.types import Slots


@dataclass(frozen=True)
class WeightedCE(SurpriseLoss):
    """weight(t) · -log p(x_0) at every hidden slot, divided by all editable slots.

    `weight` elbo: the bound's own -alpha'/(1 - alpha). `weight` level: 1/(1 - alpha), one over the share that is
    hidden, so that every noise level counts the mean surprise of its slots, whatever the schedule and its bounds (a
    fixed ratio too, where the elbo weight is zero). `max_weight` clips either, so that a nearly clean row, with one
    hidden slot and a weight in the thousands, cannot own the step. Unclipped, with `weight` elbo and a process that
    has a bound, this is that bound; with anything else it bounds nothing.

    Raises ValueError for another weight or a `max_weight` that is not positive.
    """

    weight: Literal["elbo", "level"] = "elbo"
    max_weight: float | None = None

    accepts: ClassVar[tuple[type[Process], ...]] = (MaskedDiffusion,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight not in ("elbo", "level"):
            raise ValueError(f"loss.weight={self.weight!r} is no weight of a noise level: choose elbo or level.")
        if self.max_weight is not None and self.max_weight <= 0:
            raise ValueError(
                f"loss.max_weight={self.max_weight} would silence the loss: choose a number above 0, or null."
            )

    def weighed(self, surprise: Float[Tensor, " N"], slots: Slots, process: Process) -> Float[Tensor, " N"]:
        assert isinstance(process, MaskedDiffusion)
        weight = process.weight(slots.t) if self.weight == "elbo" else 1.0 / process.mask_ratio(slots.t)
        weight = weight if self.max_weight is None else weight.clamp(max=self.max_weight)
        return weight.to(surprise) * surprise

    def refuses(self, process: Process) -> str | None:
        assert isinstance(process, MaskedDiffusion)
        if self.weight == "level" or process.weight(torch.tensor([0.5])).item() > 0:
            return None
        return (
            "the mask ratio is fixed, so the elbo weight is zero everywhere and nothing would be learnt. "
            "Use loss.weight=level."
        )
