"""Commit the surest slots first (low-confidence remasking in LLaDA, arXiv:2502.09992)."""

from dataclasses import dataclass

from dllm_lightning.sampler.order import Order, Surest
from dllm_lightning.sampler.reveal import Reveal


@dataclass(frozen=True)
class Confidence(Reveal):
    """At each step, writes down the tokens the network is surest of; among equals the one further left.

    Confidence is the probability of the chosen token before any temperature.
    """

    @property
    def order(self) -> Order:
        return Surest()
