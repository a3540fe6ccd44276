"""How much of the text is destroyed by time t. A schedule is one curve; everything else about noise follows from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

NEGLIGIBLE = 2e-3
"""A schedule that starts this close to clean and ends this close to noise covers the whole path: what it leaves out is
below 0.01 nats a token (alpha(1) = 1e-3, usual in the papers, leaves out 3e-3 at K = 50,000)."""


@dataclass(frozen=True)
class NoiseSchedule(ABC):
    """The mask ratio 1 - alpha(t), rising from `min_ratio` at t = 0 to `max_ratio` at t = 1.

    A concrete schedule answers with its `shape`, a curve from 0 to 1; the bounds stretch it:
    1 - alpha(t) = min_ratio + (max_ratio - min_ratio) shape(t). Equal bounds give one fixed ratio (BERT: 0.15).
    The ratio, not alpha, is the primary quantity: near t = 0 it is tiny, and 1 - alpha would round it away.

    Raises ValueError unless 0 <= min_ratio <= max_ratio <= 1 and max_ratio > 0.
    """

    min_ratio: float = 0.0
    max_ratio: float = 1.0

    def __post_init__(self) -> None:
        if not (0.0 <= self.min_ratio <= self.max_ratio <= 1.0 and self.max_ratio > 0.0):
            raise ValueError(
                f"noise.min_ratio={self.min_ratio} and noise.max_ratio={self.max_ratio} do not bound a mask ratio. "
                f"Choose 0 <= min_ratio <= max_ratio <= 1 with max_ratio above 0."
            )

    @abstractmethod
    def shape(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """The curve between the bounds: 0 (or nearly) at t = 0, 1 (or nearly) at t = 1, increasing."""

    @abstractmethod
    def shape_prime(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """The slope of `shape`."""

    @abstractmethod
    def shape_inverse(self, share: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """The time at which `shape` reaches a share."""

    def mask_ratio(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """1 - alpha(t), exact to float precision for small t."""
        return self.min_ratio + (self.max_ratio - self.min_ratio) * self.shape(t)

    def alpha(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """The probability that a token survives until t."""
        return 1.0 - self.mask_ratio(t)

    def alpha_prime(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """d alpha / dt, never positive."""
        return -(self.max_ratio - self.min_ratio) * self.shape_prime(t)

    def time_of(self, alpha: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """The time at which a share alpha survives. Raises ValueError for a fixed ratio, which has no such time."""
        if self.min_ratio == self.max_ratio:
            raise ValueError(f"The mask ratio is fixed at {self.max_ratio}, so no time belongs to a survival share.")
        share = (1.0 - alpha - self.min_ratio) / (self.max_ratio - self.min_ratio)
        return self.shape_inverse(share.clamp(0.0, 1.0))

    @property
    def complete(self) -> bool:
        """Whether the curve runs from clean text to pure noise, so that a likelihood bound can be read off it."""
        ends = self.mask_ratio(torch.tensor([0.0, 1.0], dtype=torch.float64))
        return ends[0].item() <= NEGLIGIBLE and ends[1].item() >= 1.0 - NEGLIGIBLE

    def unbounded(self) -> NoiseSchedule:
        """The same curve from clean to noise."""
        return replace(self, min_ratio=0.0, max_ratio=1.0)

    def grid(self, steps: int) -> Float[Tensor, " steps_and_one"]:
        """steps + 1 times from 1 to 0, in float64: the path of a sampler. Raises ValueError for fewer than one step."""
        if steps < 1:
            raise ValueError(f"A sampler needs at least one step, not {steps}.")
        return torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
