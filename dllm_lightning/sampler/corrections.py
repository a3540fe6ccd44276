"""What became of each slot along a trajectory: still noise, written, or written again with another token."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dllm_lightning.types import Canvas, Step, Vocab


class Corrections:
    """Follows a trajectory step by step.

    A slot is `written` when it gets a token that the network believes in more than in one drawn at random. A mask, or
    a token that is just noise, makes it noise again. A correction is a written slot that gets another token, whether
    at once or by way of noise.
    """

    def __init__(self, canvas: Canvas, vocab: Vocab) -> None:
        self.written: Bool[Tensor, "B L"] = torch.zeros_like(canvas.editable)
        self.corrected: Bool[Tensor, "B L"] = torch.zeros_like(canvas.editable)
        self.counts: Int[Tensor, " B"] = torch.zeros_like(canvas.ids[:, 0])
        self._last = torch.full_like(canvas.ids, -1)
        self._mask_id, self._chance = vocab.mask_id, 1 / max(len(vocab.noise_ids), 1)

    def note(self, step: Step) -> None:
        """Takes one more step into account; `corrected` then marks what it corrected."""
        wrote = step.changed & (step.x != self._mask_id) & (step.confidence > self._chance)
        self.corrected = wrote & (self._last >= 0) & (self._last != step.x)
        self.counts = self.counts + self.corrected.sum(1)
        self.written = (self.written & ~step.changed) | wrote
        self._last = torch.where(wrote, step.x, self._last)
