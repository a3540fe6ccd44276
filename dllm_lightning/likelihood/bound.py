"""The bound on -log p of the answers in some rows, by drawing noise: what a network does not know of what is hidden."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_lightning.likelihood.estimator import Estimator
from dllm_lightning.likelihood.numbered import Numbered
from dllm_lightning.process import Denoiser
from dllm_lightning.types import Canvas


def nats(
    denoiser: Denoiser, by: Estimator, canvas: Canvas, numbers: Sequence[int], seed: int, draws: int
) -> Float[Tensor, "B draws"]:
    """Draws of the bound on -log p(editable slots | the others), in nats per row; their mean estimates the bound.

    One text per row; `numbers` and `draws` as in `Numbered`. Raises CannotEstimate for an estimator that does not fit.
    """
    return torch.stack([_draw(denoiser, by, canvas, Numbered(seed, i, draws, numbers)) for i in range(draws)], dim=1)


def _draw(denoiser: Denoiser, by: Estimator, canvas: Canvas, draws: Numbered) -> Float[Tensor, " B"]:
    noise, u = by.noise(denoiser.process), draws.times(canvas)
    batch = noise.corrupt(canvas, by.time(u), draws)
    slots, (rows, length) = batch.slots(), canvas.ids.shape

    def reading(log_p_x0: Tensor, part: slice) -> tuple[Tensor, ...]:
        return (noise.nelbo(log_p_x0, slots.chunk(part.start, part.stop)),)

    first = canvas.editable.long().argmax(1, keepdim=True)
    ratio = noise.mask_ratio(batch.t.gather(1, first).squeeze(1))
    clock = denoiser.process.schedule.time_of(1.0 - ratio.double()).float()  # its own, at the same share of noise
    (values,) = denoiser.read(batch.x_t, clock, canvas.segment, batch.asked, reading)
    total = values.new_zeros(rows, dtype=torch.float64).index_add(0, slots.at // length, values.double())
    return by.weight(u[:, 0]).double() * total
