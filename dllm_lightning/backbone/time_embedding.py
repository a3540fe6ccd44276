"""How much of the text is noise, told to a network that was never asked before."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dllm_lightning.backbone.networks import InvalidBackbone

TIME_FILE = "time_embedding.safetensors"
"""The weights of a time embedding beside an exported network: they are no part of its model.safetensors."""

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
        if level.device.type != "cpu":
            return self.vectors(level)
        levels, which = level.unique(return_inverse=True)  # one per document; a GPU would wait to learn how many
        return nn.functional.embedding(which, self.vectors(levels))

    def vectors(self, level: Float[Tensor, "*n"]) -> Float[Tensor, "*n D"]:
        odds = torch.logit(level.float(), eps=1e-7).clamp(-FURTHEST, FURTHEST)
        angle = odds[..., None] * self.frequencies
        return self.outer(nn.functional.silu(self.inner(torch.cat([angle.sin(), angle.cos()], dim=-1))))

    def save(self, file: Path) -> None:
        """Its weights; the frequencies too, which a program that knows nothing of this package cannot guess."""
        from safetensors.torch import save_file

        save_file(self.state_dict() | {"frequencies": self.frequencies}, file)

    def restore(self, file: Path) -> None:
        """Takes up what was saved. Raises InvalidBackbone where it is another network's, or no such file."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            weights = load_file(file)
            weights.pop("frequencies", None)
            self.load_state_dict(weights)
        except (SafetensorError, RuntimeError) as error:
            said = str(error).strip().splitlines()[-1].strip()
            raise InvalidBackbone(
                f"{str(file)!r} does not belong to the network beside it ({said}): export the model again."
            ) from error
