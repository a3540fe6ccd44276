"""A network and a process together: what is believed about the clean text. This is all that a sampler ever sees."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_lightning.backbone import Backbone
from dllm_lightning.process import Denoiser, Process, Reading
from dllm_lightning.types import Slots


class NetworkDenoiser(Denoiser):
    """log p(x_0 | x_t) by a backbone, in evaluation mode and without gradients.

    The process is the plain one behind the corruption of the training: that is what can be walked back. `calls` counts
    network calls. Whoever trains on afterwards puts the backbone back into training mode.
    """

    def __init__(self, backbone: Backbone, process: Process) -> None:
        self.backbone, self.process = backbone.eval(), process.plain
        self.calls = 0

    @torch.no_grad()
    def read(
        self,
        x_t: Int[Tensor, "B L"],
        t: Float[Tensor, " B"],
        segment: Int[Tensor, "B L"],
        at: Bool[Tensor, "B L"],
        reading: Reading,
    ) -> tuple[Tensor, ...]:
        """Rows in which nothing is asked stay at home: the network sees the others only."""
        rows = at.any(1)
        if not rows.any():
            return reading(torch.empty(0, self.process.vocab.size, device=x_t.device), slice(0, 0))
        self.calls += 1
        times = t.float()[:, None].expand(x_t.shape)
        slots = Slots.of(at, x_t, x_t, times)
        asked = at[rows].flatten().nonzero().squeeze(-1)
        found: list[tuple[Tensor, ...]] = []

        def score(logits: Tensor, start: int, stop: int) -> Tensor:
            found.append(reading(self.process.log_p_x0(logits, slots.chunk(start, stop)), slice(start, stop)))
            return logits[:, :1]

        level = self.process.mask_ratio(times[rows])
        self.backbone(x_t[rows], level, segment[rows], asked, score=score)
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))
