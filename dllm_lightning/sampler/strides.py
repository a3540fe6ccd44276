"""Walk from noise to text along strides of time: the loop of ancestral sampling, Psi-samplers and ReMDM.

x_s ~ kappa q(x_s | x_t, x_0) + (1 - kappa) q(x_s | x_0), with x_0 averaged over the network's belief in both. kappa = 1
is the process's own posterior; below 1 a token that was written can be taken back. One network call a stride.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_lightning.noise import NoiseSchedule
from dllm_lightning.process import Denoiser, Process
from dllm_lightning.sampler.checks import check_count, check_noise, check_temperature, check_top_p
from dllm_lightning.sampler.choose import categorical, nucleus, probability_of, sharpen
from dllm_lightning.sampler.kappa import Posterior
from dllm_lightning.sampler.profile import Stride
from dllm_lightning.sampler.sampler import Sampler, beginning
from dllm_lightning.types import Canvas, Step, Trajectory

CELLS = 2**24
"""Numbers in one table of probabilities: slots are drawn in blocks of rows, so that float64 stays affordable."""


@dataclass(frozen=True)
class Strides(Sampler, ABC):
    """Draws every slot in question anew in each of `steps` strides; the concrete sampler knows the way.

    `temperature` and `top_p` sharpen the belief, not the path. `greedy_tail`: the last stride takes the most probable
    token of the belief itself; under uniform noise it so drops the evidence of the tokens that stand there, which at
    the clean end would keep practically all of them. A draft is taken up where a share `noise` of a text is destroyed.

    Distributions are formed and drawn in float64: many small strides give each token a tiny probability, and float32
    would lose the rare ones. Raises ValueError for numbers without sense.
    """

    steps: int = 64
    temperature: float = 1.0
    top_p: float = 1.0
    greedy_tail: bool = False
    noise: float = 0.2

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        check_temperature(self.temperature)
        check_top_p(self.top_p)
        check_noise(self.noise)

    @abstractmethod
    def way(self, schedule: NoiseSchedule, start: float) -> list[Stride]:
        """The strides from time `start` to clean text."""

    def walk(
        self,
        denoiser: Denoiser,
        canvas: Canvas,
        generator: torch.Generator | None,
        draft: Int[Tensor, "B L"] | None,
    ) -> Trajectory:
        process, (_, editable, segment) = denoiser.process, canvas
        x = beginning(process, canvas, generator, draft)
        way = self.way(process.schedule, 1.0 if draft is None else _time(process.schedule, 1 - self.noise))
        at = process.asks(x, editable)
        placed = torch.where(editable & ~at, 0.0, torch.inf).double()  # nobody believed in the tokens of a draft yet
        for index, (t, s, alpha_t, alpha_s, kappa) in enumerate(way):
            if not editable.any() or _finished(at, way[index:]):
                return
            log_p_x0 = denoiser(x, torch.full(x.shape[:1], t, device=x.device), segment, at)
            share = kappa(alpha_s, alpha_t, placed)
            if self.greedy_tail and index == len(way) - 1:
                x_s = log_p_x0.argmax(-1)
            else:
                x_s = self._draw(process, log_p_x0, x[at], share[at], alpha_s, alpha_t, generator)
            sure = torch.zeros(at.shape, device=at.device).masked_scatter_(at, probability_of(x_s, log_p_x0))
            before, x = x, x.masked_scatter(at, x_s)
            x = _taken_back(process, x, editable & ~at, (1 - share) * (1 - alpha_s), generator)
            changed, at = x != before, process.asks(x, editable)
            placed = torch.where(changed, sure.double(), placed).masked_fill(at, torch.inf)
            yield Step(index, t, s, x, changed, torch.where(changed, sure, 0.0))

    def _draw(
        self,
        process: Process,
        log_p_x0: Float[Tensor, "N K"],
        x_t: Int[Tensor, " N"],
        kappa: Float[Tensor, " N"],
        alpha_s: float,
        alpha_t: float,
        generator: torch.Generator | None,
    ) -> Int[Tensor, " N"]:
        """x_s at the slots in question."""
        rows, drawn = max(1, CELLS // log_p_x0.shape[1]), []
        for belief, shown, share in zip(log_p_x0.split(rows), x_t.split(rows), kappa.split(rows), strict=True):
            p_x0 = nucleus(sharpen(belief, self.temperature).exp(), self.top_p)
            alphas = torch.full_like(share, alpha_s), torch.full_like(share, alpha_t)
            p_x_s = process.posterior(p_x0, shown, *alphas)
            if (share < 1).any():
                p_x_s = share[:, None] * p_x_s + (1 - share[:, None]) * process.renoised(p_x0, shown, *alphas)
            drawn.append(categorical(p_x_s.log(), generator=generator))
        return torch.cat(drawn)


def _finished(at: Bool[Tensor, "B L"], rest: list[Stride]) -> bool:
    """Whether nothing is in question, and nothing will be taken back on the rest of the way."""
    return all(isinstance(stride.kappa, Posterior) for stride in rest) and not at.any()


def _taken_back(
    process: Process,
    x: Int[Tensor, "B L"],
    shown: Bool[Tensor, "B L"],
    sigma: Float[Tensor, "B L"],
    generator: torch.Generator | None,
) -> Int[Tensor, "B L"]:
    """Slots that are not in question hold their clean token: with probability sigma it gives way to pure noise."""
    if not (shown & (sigma > 0)).any():
        return x
    chance = torch.rand(x.shape, generator=generator, device=x.device, dtype=torch.float64)
    lost = shown & (chance < sigma)
    if not lost.any():
        return x
    pure = torch.multinomial(process.stationary.to(x.device), int(lost.sum()), replacement=True, generator=generator)
    return x.masked_scatter(lost, pure)


def _time(schedule: NoiseSchedule, alpha: float) -> float:
    return schedule.time_of(torch.tensor(alpha, dtype=torch.float64)).item()
