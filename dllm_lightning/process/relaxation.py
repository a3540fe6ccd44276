"""The Gaussian behind uniform noise: the largest of K noisy numbers stays where it was, or lands anywhere.

Give each of K classes a number w = alpha_tilde e_x + sigma_tilde epsilon, with alpha_tilde^2 + sigma_tilde^2 = 1 and
gamma = log(sigma_tilde^2 / alpha_tilde^2). The place of the largest is distributed as uniform-state diffusion from x
with alpha = T(gamma) (Duo, arXiv:2506.10892). That holds at each time by itself; the path of the largest through time
is not the process. T is an integral over one variable, taken here when it is needed: no file, any K.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache, cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_lightning.noise import NoiseSchedule

NODES, STEP = torch.linspace(-9.0, 30.0, 513, dtype=torch.float64), 39.0 / 512
"""Where the integrals are sampled. The trapezoid rule converges faster than any power on functions that die out at
both ends: this is exact to 1e-12 for K from 2 to 262,144."""
FARTHEST = 20.0
"""The largest mu worth telling from infinity: there 1 - alpha is below 1e-38."""


@dataclass(frozen=True)
class Gaussian:
    """T(gamma) for K classes: the probability K P - 1 over K - 1, where P is the chance that class x has the largest.

    With mu = exp(-gamma / 2) = alpha_tilde / sigma_tilde and phi, Phi the normal density and distribution,
    P = ∫ phi(y - mu) Phi(y)^(K-1) dy. In float64 inside, whatever comes in; work and memory are 513 numbers for each
    one asked for, so a whole batch goes through `Relaxed`.

    Raises ValueError for fewer than 2 classes.
    """

    classes: int

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise ValueError(f"classes={self.classes} leaves nothing to be confused with: noise needs 2 or more.")

    def alpha(self, gamma: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """T(gamma), from 1 to 0; P - 1/K is taken under the integral, so that small alpha keep their digits."""
        mu, y = _mu(gamma).clamp(max=FARTHEST), NODES.to(gamma.device)
        inside = torch.expm1(mu * y - mu**2 / 2) * torch.exp(self._log_others(self.classes - 1, gamma) - y**2 / 2)
        return self._integral(inside, self.classes / (self.classes - 1)).to(gamma)

    def mask_ratio(self, gamma: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """1 - T(gamma); 1 - P is taken under the integral, so that small ratios keep their digits."""
        beside = torch.exp(-((NODES.to(gamma.device) - _mu(gamma)) ** 2) / 2)
        inside = beside * -torch.expm1(self._log_others(self.classes - 1, gamma))
        return self._integral(inside, self.classes / (self.classes - 1)).to(gamma)

    def alpha_prime(self, gamma: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """dT / dgamma = -K mu / 2 · ∫ phi(y - mu) phi(y) Phi(y)^(K-2) dy, which is the slope of P by parts."""
        mu, y = _mu(gamma), NODES.to(gamma.device)
        inside = torch.exp(self._log_others(self.classes - 2, gamma) - ((y - mu) ** 2 + y**2) / 2)
        slope = self._integral(inside, self.classes / math.sqrt(2.0 * math.pi))
        return (-mu.squeeze(-1) / 2 * slope).to(gamma)

    def gamma(self, alpha: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """The inverse of T, from a table: within 1e-10 for alpha from 1e-4 to 1 - 1e-4.

        The tangents at the ends of the table go on from there, to the infinities at 0 and 1.
        """
        logits, gammas, slopes = (column.to(alpha.device) for column in _inverse(self.classes))
        logit = torch.logit(alpha.double())
        near = logit.clamp(logits[0], logits[-1])
        right = torch.searchsorted(logits, near.contiguous()).clamp(1, len(logits) - 1)
        left = right - 1
        width = logits[right] - logits[left]
        u = (near - logits[left]) / width
        rise = gammas[right] - gammas[left]
        bend = (slopes[left] * width - rise) * (1 - u) - (slopes[right] * width - rise) * u  # Hermite's cubic
        beyond = torch.where(logit > near, slopes[-1], slopes[0]) * (logit - near)
        return (gammas[left] + u * rise + u * (1 - u) * bend + beyond).to(alpha)

    def _log_others(self, count: int, like: Tensor) -> Float[Tensor, " nodes"]:
        """log Phi(y)^count: that so many others are all below y."""
        return count * torch.special.log_ndtr(NODES).to(like.device)

    def _integral(self, inside: Tensor, factor: float) -> Tensor:
        return inside.sum(-1) * (STEP * factor / math.sqrt(2.0 * math.pi))


def _mu(gamma: Tensor) -> Tensor:
    """alpha_tilde / sigma_tilde in float64, with a trailing axis for the nodes."""
    return torch.exp(-gamma.double() / 2)[..., None]


@cache
def _inverse(classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Along rising logit(alpha): the logit, its gamma, and the slope of gamma in it."""
    gaussian = Gaussian(classes)
    logits, gammas, slopes = [], [], []
    for gamma in torch.linspace(18.0, -5.0, 4097, dtype=torch.float64).split(512):
        alpha, ratio = gaussian.alpha(gamma), gaussian.mask_ratio(gamma)
        logits.append(alpha.log() - ratio.log())
        gammas.append(gamma)
        slopes.append(alpha * ratio / gaussian.alpha_prime(gamma))
    return torch.cat(logits), torch.cat(gammas), torch.cat(slopes)


@dataclass(frozen=True)
class Relaxed(NoiseSchedule):
    """alpha(t) = T(gamma(t)), with gamma rising in a straight line: the schedule of Duo's curriculum.

    The line starts and ends where T meets the bounds. These are Duo's published ranges of gamma, which belong to one
    vocabulary each, said in a way that belongs to none: alpha from 0.95 to 0.05.

    Raises ValueError unless 0 < min_ratio < max_ratio < 1 (gamma is infinite at 0 and at 1) and classes >= 2.
    """

    min_ratio: float = 0.05
    max_ratio: float = 0.95
    classes: int = field(kw_only=True)

    def __post_init__(self) -> None:
        if not 0.0 < self.min_ratio < self.max_ratio < 1.0:
            raise ValueError(
                f"min_ratio={self.min_ratio} and max_ratio={self.max_ratio} do not bound a Gaussian's noise, which "
                f"would take for ever from clean text or to pure noise: choose 0 < min_ratio < max_ratio < 1."
            )
        Gaussian(self.classes)

    @classmethod
    def of_weights(cls, classes: int, low: float, high: float) -> Relaxed:
        """The range of w, where the noise comes as (1 - w) e_x + w epsilon: gamma = 2 log(w / (1 - w)).

        Raises ValueError unless 0 < low < high < 1.
        """
        if not 0.0 < low < high < 1.0:
            raise ValueError(f"low={low} and high={high} are no range of noise weights: choose 0 < low < high < 1.")
        ends = 2 * torch.logit(torch.tensor([low, high], dtype=torch.float64))
        return cls(*Gaussian(classes).mask_ratio(ends).tolist(), classes=classes)

    def gamma(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """The logarithm of noise to signal at t."""
        start, end = self._ends
        return (start + (end - start) * t.double()).to(t)

    def shape(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return _chebyshev(self._series[0], t.double()).to(t)

    def shape_prime(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return _chebyshev(self._series[1], t.double()).to(t)

    def shape_inverse(self, share: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        start, end = self._ends
        ratio = self.min_ratio + (self.max_ratio - self.min_ratio) * share.double()
        t = (Gaussian(self.classes).gamma(1.0 - ratio) - start) / (end - start)
        t = t - (self.shape(t) - share.double()) / self.shape_prime(t)  # Newton's step takes the last digits
        return t.clamp(0.0, 1.0).to(share)

    def unbounded(self) -> NoiseSchedule:
        """Itself: a Gaussian has no curve from clean to noise."""
        return self

    @cached_property
    def _ends(self) -> tuple[float, float]:
        alpha = 1.0 - torch.tensor([self.min_ratio, self.max_ratio], dtype=torch.float64)
        start, end = Gaussian(self.classes).gamma(alpha).tolist()
        return start, end

    @cached_property
    def _series(self) -> tuple[list[float], list[float]]:
        """`shape` and `shape_prime` in Chebyshev's polynomials of 2t - 1, within 1e-12.

        The slope is fitted, at Chebyshev's points, and the curve is its exact integral.
        """
        count = 256
        angle = (torch.arange(count, dtype=torch.float64) + 0.5) * (math.pi / count)
        slope = -Gaussian(self.classes).alpha_prime(self.gamma((1 + angle.cos()) / 2))
        order = torch.arange(count, dtype=torch.float64)
        prime = (order[:, None] * angle).cos() @ slope * (2.0 / count)  # prime[0] is twice its coefficient
        prime = prime[: int((prime.abs() > 1e-13 * prime.abs().max()).nonzero().max()) + 1]
        above = torch.cat([prime[2:], prime.new_zeros(2)])
        curve = (prime - above) / (4 * order[1 : len(prime) + 1])  # of order 1 and up; dt is half of d(2t - 1)
        start, end = (curve * (-1) ** order[1 : len(prime) + 1]).sum(), curve.sum()
        prime[0] /= 2
        return (torch.cat([-start[None], curve]) / (end - start)).tolist(), (prime / (end - start)).tolist()


def _chebyshev(series: list[float], t: Tensor) -> Tensor:
    """The sum of c_n T_n(2t - 1), by Clenshaw's recurrence."""
    x = 2 * t - 1
    last, before = torch.zeros_like(x), torch.zeros_like(x)
    for c in reversed(series[1:]):
        last, before = 2 * x * last - before + c, last
    return x * last - before + series[0]
