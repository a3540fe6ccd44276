"""A belief that a text goes on: where something given stands behind a slot, no answer ends in it."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_lightning.process import Denoiser, Reading
from dllm_lightning.types import Canvas


class Ongoing(Denoiser):
    """The belief of another denoiser, without `end_id` at the slots `inside` the text, and normalised again.

    So no sampler can write an end there, not even one that fills the rest of a text with ends once it has seen one.
    """

    def __init__(self, inner: Denoiser, inside: Bool[Tensor, "B L"], end_id: int) -> None:
        self.inner, self.process = inner, inner.process
        self.inside, self.end_id = inside.cpu(), end_id

    def read(
        self,
        x_t: Int[Tensor, "B L"],
        t: Float[Tensor, " B"],
        segment: Int[Tensor, "B L"],
        at: Bool[Tensor, "B L"],
        reading: Reading,
    ) -> tuple[Tensor, ...]:
        inside = self.inside.repeat(len(at) // len(self.inside), 1)[at.cpu()]  # guidance asks every row twice

        def ongoing(log_p_x0: Float[Tensor, "n K"], part: slice) -> tuple[Tensor, ...]:
            here = inside[part].to(log_p_x0.device)
            log_p_x0[:, self.end_id].masked_fill_(here, -torch.inf)
            return reading(log_p_x0 - torch.where(here, log_p_x0.logsumexp(-1), 0.0)[:, None], part)

        return self.inner.read(x_t, t, segment, at, ongoing)

    def within(self, canvas: Canvas) -> Denoiser:
        return Ongoing(self.inner.within(canvas), self.inside, self.end_id)
