"""Walk the corruption backwards, by the process's own posterior (MDLM, arXiv:2406.07524, section 3.2.3)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch

from dllm_lightning.sampler.checks import check_count, check_temperature
from dllm_lightning.sampler.choose import categorical, probability_of, sharpen
from dllm_lightning.sampler.sampler import Denoiser, Sampler
from dllm_lightning.types import Canvas, Step, Trajectory


@dataclass(frozen=True)
class Ancestral(Sampler):
    """x_s ~ q(x_s | x_t, x_0) with x_0 averaged over the network's belief, along `steps` equal strides of time.

    Exact in the limit of many steps, for any process. The last stride ends in clean text whatever the schedule leaves
    at t = 0, so nothing stays hidden. `temperature` sharpens the belief, not the path. Posteriors are formed and drawn
    in float64: many small steps give each token a tiny probability, and float32 would lose the rare ones.
    """

    steps: int = 64
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        check_temperature(self.temperature)

    def walk(self, denoiser: Denoiser, canvas: Canvas, generator: torch.Generator | None) -> Trajectory:
        process, (_, editable, segment) = denoiser.process, canvas
        times = process.schedule.grid(self.steps)
        alphas = process.schedule.alpha(times).index_fill(0, torch.tensor(self.steps), 1.0)
        path = pairwise(zip(times.tolist(), alphas.to(segment.device), strict=True))
        x = process.prior(canvas, generator)
        for index, ((t, alpha_t), (s, alpha_s)) in enumerate(path):
            at = process.asks(x, editable)
            if not at.any():
                return
            log_p_x0 = denoiser(x, torch.full(x.shape[:1], t, device=x.device), segment, at)
            p_x0, x_t = sharpen(log_p_x0, self.temperature).exp(), x[at]
            p_x_s = process.posterior(p_x0, x_t, alpha_s.expand(x_t.shape), alpha_t.expand(x_t.shape))
            x_s = categorical(p_x_s.log(), generator=generator)
            confidence = torch.zeros(at.shape, device=at.device).masked_scatter_(at, probability_of(x_s, log_p_x0))
            before, x = x, x.masked_scatter(at, x_s)
            yield Step(index, t, s, x, x != before, torch.where(x != before, confidence, 0.0))
