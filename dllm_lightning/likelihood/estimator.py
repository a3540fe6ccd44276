"""Two ways to draw the noise under which the bound on -log p is read, with the same mean.

The bound of a diffusion is a mean over its times, and does not depend on the curve of its schedule (MDLM,
arXiv:2406.07524, section 3.3), so both go along the straight line. For masks the mean is also one over counts (LLaDA,
arXiv:2502.09992, equation 14), and it is the chain of conditionals, averaged over all orders of writing.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from dllm_lightning.noise import LogLinear
from dllm_lightning.process import MaskedDiffusion, Process, UniformCount


class CannotEstimate(ValueError):
    """The estimator does not fit the process."""


@dataclass(frozen=True)
class Estimator(ABC):
    """Draws noise by a number u, uniform on (0, 1], for each text."""

    accepts: ClassVar[tuple[type[Process], ...]] = (Process,)

    @abstractmethod
    def noise(self, process: Process) -> Process:
        """What corrupts the text, and says what a belief costs."""

    @abstractmethod
    def time(self, u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """The time of that noise."""

    @abstractmethod
    def weight(self, u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """dt / du, for what is averaged over times."""


@dataclass(frozen=True)
class ByTime(Estimator):
    """Any process: t = u^2, and nats times 2u.

    A bound on a few slots weighs 1/t, so with t uniform its variance has no limit (log-divergent at t = 0); with more
    draws near 0, where hardly anything is noise, it has one.
    """

    def noise(self, process: Process) -> Process:
        return dataclasses.replace(process.plain, schedule=LogLinear())

    def time(self, u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return u.square()

    def weight(self, u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return 2 * u


@dataclass(frozen=True)
class ByCount(Estimator):
    """Masks: exactly l of a text's A editable tokens are hidden, l uniform on 1..A; their surprise times A / l.

    It has less variance than drawing times: the number of hidden tokens does not fluctuate.
    """

    accepts: ClassVar[tuple[type[Process], ...]] = (MaskedDiffusion,)

    def noise(self, process: Process) -> Process:
        if not isinstance(process, MaskedDiffusion):
            raise CannotEstimate(
                f"estimator=count hides exact numbers of tokens, and {type(process).__name__} hides none: "
                f"give estimator=time, or leave it out."
            )
        return dataclasses.replace(process.plain, schedule=LogLinear(), hiding=UniformCount())

    def time(self, u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return u

    def weight(self, u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return u.new_ones(u.shape)


def estimator(process: Process) -> Estimator:
    """The one with the least variance for this process."""
    return ByCount() if isinstance(process, ByCount.accepts) else ByTime()
