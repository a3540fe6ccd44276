"""Commit slots in random order (random remasking in LLaDA, arXiv:2502.09992)."""

from dataclasses import dataclass

from dllm_lightning.sampler.order import Order, Shuffled
from dllm_lightning.sampler.reveal import Reveal


@dataclass(frozen=True)
class RandomOrder(Reveal):
    """At each step, writes down tokens at random places.

    One token a step at temperature 1, with a perfect network, draws from the true joint distribution.
    """

    @property
    def order(self) -> Order:
        return Shuffled()
