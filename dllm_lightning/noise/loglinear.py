"""The straight line: MDLM (arXiv:2406.07524) and LLaDA (arXiv:2502.09992)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_lightning.noise.schedule import NoiseSchedule


@dataclass(frozen=True)
class LogLinear(NoiseSchedule):
    """Survival falls in a straight line: alpha(t) = 1 - t.

    With masks this makes the ELBO weight exactly 1/t. `max_ratio` below 1 keeps alpha(1) above zero, the papers'
    floor of 1e-3 being max_ratio = 0.999. (The name: -log alpha is the papers' "total noise".)
    """

    def shape(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return t

    def shape_prime(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return torch.ones_like(t)

    def shape_inverse(self, share: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return share
