"""What became of each slot along a trajectory: still noise, written, or written again with another token."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dllm_lightning.process import Process
from dllm_lightning.types import Canvas, Step


class Corrections:
    """Follows a trajectory step by step.

    A slot is `written` when it gets a token that the network believes in more than noise does: any token behind a
    mask, one that is likelier than a random draw under uniform noise. What noise alone explains makes it noise again.
    A correction is a written slot that gets another token, whether at once or by way of noise.
    """

    def __init__(self, canvas: Canvas, process: Process) -> None:
        self.written: Bool[Tensor, "B L"] = torch.zeros_like(canvas.editable)
        self.corrected: Bool[Tensor, "B L"] = torch.zeros_like(canvas.editable)
        self.counts: Int[Tensor, " B"] = torch.zeros_like(canvas.ids[:, 0])
        self._last = torch.full_like(canvas.ids, -1)
        self._noise = process.stationary.float().to(canvas.ids.device)

    def note(self, step: Step) -> None:
        """Takes one more step into account; `corrected` marks what this one corrected, `counts` all of them by row."""
        wrote = step.changed & (step.confidence > self._noise[step.x])
        self.corrected = wrote & (self._last >= 0) & (self._last != step.x)
        self.counts = self.counts + self.corrected.sum(1)
        self.written = (self.written & ~step.changed) | wrote
        self._last = torch.where(wrote, step.x, self._last)
