"""Reveal a masked text some slots at a time, and never look back: the loop of LLaDA (arXiv:2502.09992, algorithm 5).

At each step the network proposes a token for every slot still masked; some proposals are written down, the others are
forgotten. How many are written is decided here, which ones is the `order` of the concrete sampler.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dllm_lightning.process import Denoiser, MaskedDiffusion, Process
from dllm_lightning.sampler.checks import check_pace, check_temperature
from dllm_lightning.sampler.choose import categorical, probability_of
from dllm_lightning.sampler.order import Order, foremost
from dllm_lightning.sampler.sampler import Sampler, beginning
from dllm_lightning.types import Canvas, Step, Trajectory


@dataclass(frozen=True)
class Reveal(Sampler, ABC):
    """Writes down the first slots of its `order` at each step.

    `steps` network calls for the whole answer, each row sharing out its own slots evenly, larger shares first (10
    slots in 4 steps: 3, 3, 2, 2); a row with fewer slots than steps takes one a step. Or `tokens_per_step`, a fixed
    number. With neither, one token a step: the slowest and best. `temperature` 0 takes the most probable tokens.
    Of a draft only the masks are filled.

    Raises ValueError for both at once, and for numbers below 1.
    """

    steps: int | None = None
    tokens_per_step: int | None = None
    temperature: float = 0.0

    accepts: ClassVar[tuple[type[Process], ...]] = (MaskedDiffusion,)

    def __post_init__(self) -> None:
        check_pace(self.steps, self.tokens_per_step)
        check_temperature(self.temperature)

    @property
    @abstractmethod
    def order(self) -> Order:
        """Which slots are written down first."""

    def walk(
        self,
        denoiser: Denoiser,
        canvas: Canvas,
        generator: torch.Generator | None,
        draft: Int[Tensor, "B L"] | None,
    ) -> Trajectory:
        process, editable = denoiser.process, canvas.editable
        x = beginning(process, canvas, generator, draft)
        at = process.asks(x, editable)
        slots = at.sum(1)
        index = 0
        while at.any():
            left = at.sum(1)
            log_p_x0 = denoiser(x, _clock(process, left, slots), canvas.segment, at)
            x0 = categorical(log_p_x0, self.temperature, generator)
            confidence = probability_of(x0, log_p_x0)
            chosen = foremost(self.order(confidence, generator), at, self._quota(slots, index))
            x = torch.where(chosen, x.masked_scatter(at, x0), x)
            sure = torch.zeros(at.shape, device=at.device).masked_scatter_(at, confidence)
            t, s = (_clock(process, n.sum()[None], slots.sum()[None]).item() for n in (left, left - chosen.sum(1)))
            yield Step(index, t, s, x, chosen, torch.where(chosen, sure, 0.0))
            at, index = at & ~chosen, index + 1

    def _quota(self, slots: Int[Tensor, " B"], index: int) -> Int[Tensor, " B"]:
        """How many of a row's slots step `index` writes down."""
        if self.steps is None:
            return torch.full_like(slots, self.tokens_per_step or 1)
        return slots // self.steps + (index < slots % self.steps)


def _clock(process: Process, left: Int[Tensor, " B"], slots: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    """The time at which the schedule hides the share of slots that is still masked (0 where there are none)."""
    return process.schedule.time_of(1.0 - left / slots.clamp(min=1))
