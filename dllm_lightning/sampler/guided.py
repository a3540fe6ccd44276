"""Classifier-free guidance (arXiv:2207.12598; for masked text arXiv:2410.18514): away from what needs no prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_lightning.process import Denoiser, Process, Reading
from dllm_lightning.sampler.checks import check_ids
from dllm_lightning.sampler.reveal import Reveal
from dllm_lightning.sampler.sampler import Sampler
from dllm_lightning.types import Canvas, Trajectory


@dataclass(frozen=True)
class Guided(Sampler):
    """Lets `inner` walk by log p_u + (weight + 1) (log p_c - log p_u), normalised again.

    c sees the text, u sees it with masks in place of everything that was given (the prompt, not the answer so far);
    ids in `keep` are left in both. One network call reads both, as a batch of twice the rows. Weight 0 is no guidance,
    and costs nothing. A network should have been trained with prompts that are missing (`process.prompt_dropout`).
    Raises ValueError for a weight below 0, which leads away from the prompt.
    """

    inner: Sampler = field(default_factory=Reveal)
    weight: float = 1.0
    keep: Sequence[int] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.weight, int | float) or not 0 <= self.weight < math.inf:
            raise ValueError(f"sampler.weight={self.weight} guides nowhere: give 0 for no guidance, or a number above.")
        check_ids("keep", self.keep)
        object.__setattr__(self, "keep", tuple(self.keep))  # comparable, whatever list it came as

    def refuses(self, process: Process) -> str | None:
        return self.inner.reason_against(process)

    def walk(
        self,
        denoiser: Denoiser,
        canvas: Canvas,
        generator: torch.Generator | None,
        x: Int[Tensor, "B L"],
        drafted: bool,
    ) -> Trajectory:
        if self.weight > 0:
            kept = torch.isin(canvas.ids, torch.tensor(self.keep, dtype=torch.long, device=canvas.ids.device))
            denoiser = GuidedDenoiser(denoiser, ~canvas.editable & (canvas.segment > 0) & ~kept, self.weight)
        yield from self.inner.walk(denoiser, canvas, generator, x, drafted)


class GuidedDenoiser(Denoiser):
    """The guided belief: what the text says, and the more so the less one would say it without what was `given`."""

    def __init__(self, inner: Denoiser, given: Bool[Tensor, "B L"], weight: float) -> None:
        self.inner, self.process = inner, inner.process
        self.given, self.weight = given, weight

    def read(
        self,
        x_t: Int[Tensor, "B L"],
        t: Float[Tensor, " B"],
        segment: Int[Tensor, "B L"],
        at: Bool[Tensor, "B L"],
        reading: Reading,
    ) -> tuple[Tensor, ...]:
        """The two tables stand side by side, so this one reading holds 2 N K numbers at once."""
        without = torch.where(self.given, self.process.vocab.mask_id, x_t)
        both = self.inner(torch.cat([x_t, without]), t.repeat(2), segment.repeat(2, 1), at.repeat(2, 1))
        log_p, log_p_without = both.chunk(2)
        guided = log_p_without + (self.weight + 1) * (log_p - log_p_without)
        guided = torch.where(log_p == -torch.inf, log_p, guided)  # what neither believes in
        return reading(guided.log_softmax(-1), slice(0, len(guided)))

    def within(self, canvas: Canvas) -> Denoiser:
        twice = Canvas(*(field.repeat(2, 1) for field in canvas))
        return GuidedDenoiser(self.inner.within(twice), self.given, self.weight)
