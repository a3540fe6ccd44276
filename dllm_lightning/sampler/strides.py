"""Walk from noise to text along strides of time: the loop of ancestral sampling, Psi-samplers and ReMDM.

x_s ~ kappa q(x_s | x_t, x_0) + (1 - kappa) q(x_s | x_0), with x_0 averaged over the network's belief in both. kappa = 1
is the process's own posterior; below 1 a token that was written can be taken back. One network call a stride.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_lightning.noise import NoiseSchedule
from dllm_lightning.process import Denoiser, Process, Reading
from dllm_lightning.sampler.checks import check_count, check_noise
from dllm_lightning.sampler.choose import CELLS, categorical, check_numbers, probability_of
from dllm_lightning.sampler.kappa import Posterior
from dllm_lightning.sampler.profile import Stride
from dllm_lightning.sampler.proposal import Proposal
from dllm_lightning.sampler.sampler import Sampler
from dllm_lightning.types import Canvas, Step, Trajectory


@dataclass(frozen=True)
class Strides(Sampler, ABC):
    """Draws every slot in question anew in each of `steps` strides; the concrete sampler knows the way.

    The `proposal` sharpens and cuts the belief, not the path. `greedy_tail`: the last stride takes the most probable
    token of the belief itself; under uniform noise it so drops the evidence of the tokens that stand there, which at
    the clean end would keep practically all of them. A draft is taken up where a share `noise` of a text is destroyed.

    Distributions are formed and drawn in float64: many small strides give each token a tiny probability, and float32
    would lose the rare ones. Raises ValueError for numbers without sense.
    """

    steps: int = 64
    proposal: Proposal = field(default_factory=lambda: Proposal(temperature=1.0))
    greedy_tail: bool = False
    noise: float = 0.2

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        check_noise(self.noise)
        self.proposal.check_unordered(type(self).__name__)

    @abstractmethod
    def way(self, schedule: NoiseSchedule, start: float) -> list[Stride]:
        """The strides from time `start` to clean text."""

    def walk(
        self,
        denoiser: Denoiser,
        canvas: Canvas,
        generator: torch.Generator | None,
        x: Int[Tensor, "B L"],
        drafted: bool,
    ) -> Trajectory:
        process, (_, editable, segment) = denoiser.process, canvas
        way = self.way(process.schedule, _time(process.schedule, 1 - self.noise) if drafted else 1.0)
        at = process.asks(x, editable)
        placed = torch.where(editable & ~at, 0.0, torch.inf).double()  # nobody believed in the tokens of a draft yet
        for index, (t, s, alpha_t, alpha_s, kappa) in enumerate(way):
            if not editable.any() or _finished(at, way[index:]):
                return
            share = kappa(alpha_s, alpha_t, placed)
            end = self.greedy_tail and index == len(way) - 1
            reading = self._reading(process, x[at], None if end else share[at], alpha_s, alpha_t, generator)
            x_s, sure = denoiser.read(x, torch.full(x.shape[:1], t, device=x.device), segment, at, reading)
            check_numbers(sure.isnan().any())
            sure = torch.zeros(at.shape, device=at.device).masked_scatter_(at, sure)
            before, x = x, x.masked_scatter(at, x_s)
            x = _taken_back(process, x, editable & ~at, (1 - share) * (1 - alpha_s), generator)
            changed, at = x != before, process.asks(x, editable)
            placed = torch.where(changed, sure.double(), placed).masked_fill(at, torch.inf)
            yield Step(index, t, s, x, changed, torch.where(changed, sure, 0.0))

    def _reading(
        self,
        process: Process,
        x_t: Int[Tensor, " N"],
        kappa: Float[Tensor, " N"] | None,
        alpha_s: float,
        alpha_t: float,
        generator: torch.Generator | None,
    ) -> Reading:
        """x_s at the slots in question, and the belief in it. Without kappa: the most probable clean token."""

        def reading(log_p_x0: Tensor, part: slice) -> tuple[Tensor, ...]:
            belief = self.proposal.belief(log_p_x0, process.vocab)
            if kappa is None:
                x_s = belief.argmax(-1)
            else:
                x_s = torch.cat([draw(*some) for some in _in_blocks(belief, x_t[part], kappa[part])])
            return x_s, probability_of(x_s, log_p_x0)

        def draw(belief: Tensor, shown: Tensor, share: Tensor) -> Tensor:
            p_x0 = self.proposal.tempered(belief)
            alphas = torch.full_like(share, alpha_s), torch.full_like(share, alpha_t)
            p_x_s = process.posterior(p_x0, shown, *alphas)
            if (share < 1).any():
                p_x_s = share[:, None] * p_x_s + (1 - share[:, None]) * process.renoised(p_x0, shown, *alphas)
            return categorical(p_x_s.log(), generator=generator)

        return reading


def _in_blocks(belief: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """A few rows of each at a time, so that tables in float64 stay affordable."""
    rows = max(1, CELLS // belief.shape[1])
    return zip(belief.split(rows), *(each.split(rows) for each in others), strict=True)


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
