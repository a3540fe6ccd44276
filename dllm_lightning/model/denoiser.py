"""A network and a process together: what is believed about the clean text. This is all that a sampler ever sees."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_lightning.backbone import Backbone
from dllm_lightning.backbone.cache import Cache, Memory
from dllm_lightning.process import Denoiser, Process, Reading
from dllm_lightning.types import Canvas, Slots

AT_ONCE = 16
"""Slots whose belief is read at a time on a CPU, so that it stays in its cache."""


@dataclass
class Count:
    """A number that several denoisers share."""

    so_far: int = 0


class NetworkDenoiser(Denoiser):
    """log p(x_0 | x_t) by a backbone, in evaluation mode and without gradients.

    The process is the plain one behind the corruption of the training: that is what can be walked back. `calls` counts
    network calls, those of its walks as well. Whoever trains on afterwards puts the backbone back into training mode.

    With a `cache` a walk (see `within`) computes some columns of a text, and takes the keys and values of the others
    from earlier calls; without a walk there is nothing to remember. Raises CannotRemember for a backbone that cannot.
    """

    def __init__(self, backbone: Backbone, process: Process, cache: Cache | None = None) -> None:
        self.backbone, self.process, self.cache = backbone.eval(), process.plain, cache
        self.memory: Memory | None = None
        self._count = Count()
        if cache is not None:
            backbone.store()

    @property
    def calls(self) -> int:
        return self._count.so_far

    def within(self, canvas: Canvas) -> NetworkDenoiser:
        if self.cache is None:
            return self
        walk = copy.copy(self)
        walk.memory = Memory(self.cache, canvas, self.backbone.store())
        return walk

    @torch.no_grad()
    def read(
        self,
        x_t: Int[Tensor, "B L"],
        t: Float[Tensor, " B"],
        segment: Int[Tensor, "B L"],
        at: Bool[Tensor, "B L"],
        reading: Reading,
    ) -> tuple[Tensor, ...]:
        """Rows in which nothing is asked stay at home: the network sees the others only.

        Which rows, columns and slots these are is worked out on the host, so nothing waits for the device where `at`
        lies on the host already.
        """
        device, asked = x_t.device, at.cpu()
        rows = asked.any(1).nonzero().squeeze(1)
        store = None if self.memory is None else self.memory.turn(asked, rows)
        if len(rows) == 0:
            return reading(torch.empty(0, self.process.vocab.size, device=device), slice(0, 0))
        self._count.so_far += 1
        index = asked.flatten().nonzero().squeeze(1).to(device, non_blocking=True)
        shown, times = x_t.flatten()[index], t.float()
        slots = Slots(shown, shown, times[index // x_t.shape[1]], index)
        if len(rows) < len(asked):
            here = rows.to(device, non_blocking=True)
            x_t, times, segment, asked = x_t[here], times[here], segment[here], asked[rows]
        found: list[tuple[Tensor, ...]] = []

        def score(logits: Tensor, start: int, stop: int) -> Tensor:
            size = AT_ONCE if device.type == "cpu" else stop - start
            for first in range(start, stop, size):
                last = min(first + size, stop)
                some = logits[first - start : last - start]
                found.append(reading(self.process.log_p_x0(some, slots.chunk(first, last)), slice(first, last)))
            return logits[:, :1]

        level = self.process.mask_ratio(times)[:, None].expand(x_t.shape)
        if store is None:
            self.backbone(x_t, level, segment, _places(asked, device), score=score)
        else:
            computed = asked if store.view is None else asked[:, store.view.columns]
            self.backbone(x_t, level, segment, _places(computed, device), score=score, store=store)
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


def _places(marked: Bool[Tensor, "R C"], device: torch.device) -> Int[Tensor, " N"]:
    """Indices into R·C."""
    return marked.flatten().nonzero().squeeze(1).to(device, non_blocking=True)
