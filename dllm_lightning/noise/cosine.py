"""A quarter of a wave: steep at the clean end, flat at the noisy one, so more of the time is spent nearly masked."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_lightning.noise.schedule import NoiseSchedule


@dataclass(frozen=True)
class Cosine(NoiseSchedule):
    """alpha(t) = 1 - cos(pi/2 (1 - t)), the curve of Duo (arXiv:2506.10892) without its offset in t.

    The mask ratio is therefore sin(pi t / 2), written so because 1 - (1 - cos) loses the digits that matter near t = 0.
    MDLM's curve of the same name runs the other way round: flat at the clean end.
    """

    def shape(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return torch.sin(0.5 * math.pi * t)

    def shape_prime(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return 0.5 * math.pi * torch.cos(0.5 * math.pi * t)

    def shape_inverse(self, share: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return torch.asin(share) * (2.0 / math.pi)
