"""A power of time: BD3-LM (arXiv:2503.09573) trains with its square and its square root."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from dllm_lightning.noise.schedule import NoiseSchedule


@dataclass(frozen=True)
class Polynomial(NoiseSchedule):
    """alpha(t) = 1 - t^power, with ELBO weight power/t. Above 1 most times are nearly clean, below 1 nearly noise.

    Raises ValueError unless power is positive.
    """

    power: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.power <= 0:
            raise ValueError(f"noise.power={self.power} does not rise with time: choose a power above 0.")

    def shape(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return t**self.power

    def shape_prime(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return self.power * t ** (self.power - 1.0)

    def shape_inverse(self, share: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return share ** (1.0 / self.power)
