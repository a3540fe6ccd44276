"""How much of a stride is the posterior, and how much a fresh corruption of the whole guess (Psi-samplers).

kappa is the share of the posterior. What is left of 1 goes all the way to clean text and is noised again up to s, so
a token that was written can be taken back. ReMDM (arXiv:2503.00307) says the same of masks with sigma, the probability
that a revealed token is hidden again: sigma = (1 - kappa) (1 - alpha_s).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_lightning.process import MaskedDiffusion, Process
from dllm_lightning.sampler.checks import check_share


@dataclass(frozen=True)
class Kappa(ABC):
    """kappa of a stride from alpha_t to alpha_s, slot by slot."""

    accepts: ClassVar[tuple[type[Process], ...]] = (Process,)
    """The processes for which it means something."""

    @abstractmethod
    def __call__(self, alpha_s: float, alpha_t: float, placed: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        """`placed` is the belief in each revealed token at the moment it was written; infinite where none is."""


@dataclass(frozen=True)
class Posterior(Kappa):
    """kappa = 1: ancestral sampling. Behind a mask, what was revealed stays."""

    def __call__(self, alpha_s: float, alpha_t: float, placed: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        return torch.ones_like(placed)


@dataclass(frozen=True)
class PredictorCorrector(Kappa):
    """kappa = 0: every stride guesses the whole text and noises it again."""

    def __call__(self, alpha_s: float, alpha_t: float, placed: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        return torch.zeros_like(placed)


@dataclass(frozen=True)
class Constant(Kappa):
    """The same kappa in every stride. Raises ValueError unless it is a share."""

    value: float = 0.95

    def __post_init__(self) -> None:
        check_share("kappa", self.value)

    def __call__(self, alpha_s: float, alpha_t: float, placed: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        return torch.full_like(placed, self.value)


@dataclass(frozen=True)
class Sigma(Kappa, ABC):
    """A rule of ReMDM: kappa = 1 - sigma / (1 - alpha_s), not below 0, and 1 where the text comes out clean."""

    def __call__(self, alpha_s: float, alpha_t: float, placed: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        if alpha_s >= 1.0:
            return torch.ones_like(placed)
        return (1 - self.sigma(alpha_s, alpha_t, placed) / (1 - alpha_s)).clamp(0.0, 1.0)

    @abstractmethod
    def sigma(self, alpha_s: float, alpha_t: float, placed: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        """The probability that a revealed token is taken back."""


@dataclass(frozen=True)
class Cap(Sigma):
    """sigma = min(eta, sigma_max): as much as the marginals allow, and never more than eta."""

    eta: float = 0.008

    def __post_init__(self) -> None:
        check_share("eta", self.eta)

    def sigma(self, alpha_s: float, alpha_t: float, placed: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        return torch.full_like(placed, min(self.eta, sigma_max(alpha_s, alpha_t)))


@dataclass(frozen=True)
class Rescale(Sigma):
    """sigma = eta sigma_max. (Under this name Duo's code has eta min(eta, sigma_max), which is eta squared mostly.)"""

    eta: float = 0.015

    def __post_init__(self) -> None:
        check_share("eta", self.eta)

    def sigma(self, alpha_s: float, alpha_t: float, placed: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        return torch.full_like(placed, self.eta * sigma_max(alpha_s, alpha_t))


@dataclass(frozen=True)
class Fixed(Sigma):
    """sigma = eta, whatever the stride: what a plateau needs, where alpha_s = alpha_t and nothing else moves."""

    eta: float = 0.02

    def __post_init__(self) -> None:
        check_share("eta", self.eta)

    def sigma(self, alpha_s: float, alpha_t: float, placed: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        return torch.full_like(placed, self.eta)


@dataclass(frozen=True)
class Conf(Sigma):
    """sigma_max, shared out over the revealed tokens of a row: the less sure one was when it was written, the more.

    The shares are softmax(-belief), as published: over a row they sum to 1. Masked slots take the plain posterior.
    Only masks tell what has been revealed, so no other process has such beliefs.
    """

    accepts: ClassVar[tuple[type[Process], ...]] = (MaskedDiffusion,)

    def sigma(self, alpha_s: float, alpha_t: float, placed: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        share = (-placed).softmax(-1).nan_to_num(0.0)  # a row of masks has nothing to share
        return sigma_max(alpha_s, alpha_t) * share


def sigma_max(alpha_s: float, alpha_t: float) -> float:
    """min(1, (1 - alpha_s) / alpha_t): the most that leaves the share of masks at s what the schedule wants."""
    return min(1.0, (1 - alpha_s) / alpha_t) if alpha_t > 0 else 1.0
