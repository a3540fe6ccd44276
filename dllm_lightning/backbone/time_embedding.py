"""How much of the text is noise, told to a network that was never asked before."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

FURTHEST = 12.0
"""Log-odds beyond which levels are not told apart: 6e-6 and 1 - 6e-6."""


class TimeEmbedding(nn.Module):
    """The noise level 1 - alpha of each slot as a vector of the network's width, added to what the network reads.

    Waves of its log-odds, so that both ends of the path are seen sharply, through two layers. The last one starts at
    zero: a pretrained network that is given this embedding computes at first what it computed without.
    """

    frequencies: Tensor

    def __init__(self, width: int, waves: int = 32) -> None:
        super().__init__()
        slowest, fastest = torch.pi / (2 * FURTHEST), torch.pi
        steps = torch.linspace(0, 1, waves, dtype=torch.float64)
        frequencies = (slowest * (fastest / slowest) ** steps).float()
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.inner, self.outer = nn.Linear(2 * waves, width), nn.Linear(width, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, level: Float[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        odds = torch.logit(level.float(), eps=1e-7).clamp(-FURTHEST, FURTHEST)
        angle = odds[..., None] * self.frequencies
        return self.outer(nn.functional.silu(self.inner(torch.cat([angle.sin(), angle.cos()], dim=-1))))
