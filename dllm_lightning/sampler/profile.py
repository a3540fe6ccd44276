"""How time is spent on the way from noise to text, and which kappa belongs to which part of the way.

A way has three parts, high, middle and low noise, each with a share of the strides.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_lightning.noise import NoiseSchedule
from dllm_lightning.sampler.checks import check_share
from dllm_lightning.sampler.kappa import Kappa


class Stride(NamedTuple):
    """One move from time t to s <= t, and the shares of the text that survive until then; alpha_s = 1 in the last."""

    t: float
    s: float
    alpha_t: float
    alpha_s: float
    kappa: Kappa


class Counts(NamedTuple):
    """The number of strides in each part of a way."""

    high: int
    middle: int
    low: int


@dataclass(frozen=True)
class Profile(ABC):
    """`high` and `middle` are shares of the strides; what they leave is the low part, which has one stride at least.

    Raises ValueError for shares that are none, or more than everything.
    """

    high: float = 0.0
    middle: float = 0.0

    def __post_init__(self) -> None:
        check_share("profile.high", self.high)
        check_share("profile.middle", self.middle)
        if self.high + self.middle > 1:
            raise ValueError(
                f"sampler.profile.high={self.high} and sampler.profile.middle={self.middle} are more than all strides: "
                f"choose shares that sum to 1 at most."
            )

    @abstractmethod
    def times(self, schedule: NoiseSchedule, steps: int, start: float) -> Float[Tensor, " steps_and_one"]:
        """steps + 1 times from `start` down to 0, in float64."""

    def counts(self, steps: int) -> Counts:
        low = max(1, steps - round(self.high * steps) - round(self.middle * steps))
        high = min(round(self.high * steps), steps - low)
        return Counts(high, steps - low - high, low)

    def strides(
        self, schedule: NoiseSchedule, steps: int, start: float, high: Kappa, middle: Kappa, low: Kappa
    ) -> list[Stride]:
        """The way itself. It ends in clean text, whatever the schedule leaves at t = 0."""
        times = self.times(schedule, steps, start)
        alphas = schedule.alpha(times)
        alphas[-1] = 1.0
        counts = self.counts(steps)
        kappas = [high] * counts.high + [middle] * counts.middle + [low] * counts.low
        ends = zip(pairwise(times.tolist()), pairwise(alphas.tolist()), kappas, strict=True)
        # A steep schedule may round to clean text before t = 0: from there on nothing is left to do.
        return [Stride(t, s, alpha_t, alpha_s, kappa) for (t, s), (alpha_t, alpha_s), kappa in ends if alpha_t < 1.0]


@dataclass(frozen=True)
class Linear(Profile):
    """Equal strides of time."""

    def times(self, schedule: NoiseSchedule, steps: int, start: float) -> Float[Tensor, " steps_and_one"]:
        return torch.linspace(start, 0.0, steps + 1, dtype=torch.float64)


@dataclass(frozen=True)
class Plateau(Profile):
    """Down to where a share `level` of the text survives, a stay there, and down to clean text.

    While time stands still the text is taken back and rewritten, a little at each stride, at a level of noise where
    the network sees enough to correct itself (the loop of ReMDM; linear-constant-linear in Duo's chapter II). Of few
    strides the last is always left for the way down. Raises ValueError for a level that is noise or clean text.
    """

    high: float = 0.45
    middle: float = 0.5
    level: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.level < 1:
            raise ValueError(
                f"sampler.profile.level={self.level} is no place to stay: give the share of the text that survives "
                f"there, above 0 and below 1."
            )

    def times(self, schedule: NoiseSchedule, steps: int, start: float) -> Float[Tensor, " steps_and_one"]:
        counts = self.counts(steps)
        stay = min(start, schedule.time_of(torch.tensor(self.level, dtype=torch.float64)).item())
        down = torch.linspace(start, stay, counts.high + 1, dtype=torch.float64)
        there = torch.full((counts.middle,), stay, dtype=torch.float64)
        return torch.cat([down, there, torch.linspace(stay, 0.0, counts.low + 1, dtype=torch.float64)[1:]])
