"""Total noise that grows by a constant factor: the schedule that score models brought along."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_lightning.noise.schedule import NoiseSchedule


@dataclass(frozen=True)
class Geometric(NoiseSchedule):
    """alpha(t) = exp(-sigma(t)) with sigma(t) = sigma_min^(1-t) sigma_max^t (MDLM's code, arXiv:2406.07524).

    The curve never quite touches its ends: it starts at a mask ratio of sigma_min and stops exp(-sigma_max) short of 1.
    The public default sigma_max = 1 would leave 37 % of the text standing at t = 1, which is no prior; 10 leaves 5e-5.

    Raises ValueError unless 0 < sigma_min < sigma_max.
    """

    sigma_min: float = 1e-4
    sigma_max: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f"noise.sigma_min={self.sigma_min} and noise.sigma_max={self.sigma_max} do not rise with time: "
                f"choose 0 < sigma_min < sigma_max."
            )

    def sigma(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return self.sigma_min * torch.exp(self._log_growth * t)

    def shape(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return -torch.expm1(-self.sigma(t))

    def shape_prime(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        sigma = self.sigma(t)
        return self._log_growth * sigma * torch.exp(-sigma)

    def shape_inverse(self, share: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        sigma = -torch.log1p(-share)
        return (torch.log(sigma / self.sigma_min) / self._log_growth).clamp(0.0, 1.0)

    @property
    def _log_growth(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)
