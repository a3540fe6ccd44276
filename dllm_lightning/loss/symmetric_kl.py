"""Divergences that count both ways: how wrong the belief is, and how wrong the truth would be if the belief were it.

Three readings of "symmetric KL" for uniform noise, all exact, without a one-hot vector and finite in float32. With p
the belief, x the clean token, K states and c = K alpha / (1 - alpha):

- `onehot`    KL(e_x, p) + KL(p, e_x) with log 0 read as -C:  -log p_x + sum_j p_j log p_j + C (1 - p_x)
- `marginal`  KL both ways between q(x_t | x) and q(x_t | p), which noise keeps finite by itself:
              alpha ((1 - p_x) log((1 + c) / (1 + c p_x)) + sum_{j ≠ x} p_j log(1 + c p_j)).
              For c -> ∞ it is alpha times `onehot` with C = log c.
- `nelbo`     the divergence of the bound, both ways:  -alpha' / (K alpha) · sum_j (rho_j - r_j)(log rho_j - log r_j)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_lightning.loss.loss import Loss
from dllm_lightning.noise import NoiseSchedule
from dllm_lightning.process import Gaussian, Process, UniformDiffusion
from dllm_lightning.process.rate import Divergence, log_one_plus, normalised
from dllm_lightning.types import Slots

Form = Literal["onehot", "marginal", "nelbo"]
ViewScale = Literal["none", "literal", "kappa", "inverse"]


@dataclass(frozen=True)
class SymmetricKL(Loss):
    """A divergence between truth and belief that is the same in both directions (see `form`, at the top of the file).

    `nelbo` is never below the bound, so that on a schedule from clean to noise its mean bounds -log p(x_0) too, more
    loosely. `onehot` and `marginal` bound nothing: never report a perplexity from them. `nelbo` and `marginal` are 0
    where the belief is sure of the truth; `onehot` is least there only if C is well above log K, and below that it
    pays to spread a little belief over everything. Where the text leaves doubt, only the bound itself is least at the
    true odds: the way back, from belief to truth, makes the best belief of `nelbo` flatter.

    `view_scale` weighs the noise levels, by what each level has on the right, divided by its mean over all levels, so
    that a learning rate keeps its meaning; only with `none` does anything said above about bounds hold:

    - `literal`  w / (K (1 - w) + w), where the noise came as argmax((1 - w) e_x + w epsilon)
    - `kappa`    (1 - alpha) / (K alpha + 1 - alpha): raises the noisiest levels
    - `inverse`  K alpha / (K alpha + 1 - alpha): 1 but for the noisiest

    `floor` is the C of `onehot`. Raises ValueError for another form or view scale, or a floor that is not positive.
    """

    form: Form = "marginal"
    floor: float = math.log(1e4)
    view_scale: ViewScale = "none"

    accepts: ClassVar[tuple[type[Process], ...]] = (UniformDiffusion,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in get_args(Form):
            raise ValueError(f"loss.form={self.form!r} is no divergence: choose one of {', '.join(get_args(Form))}.")
        if self.view_scale not in get_args(ViewScale):
            choices = ", ".join(get_args(ViewScale))
            raise ValueError(f"loss.view_scale={self.view_scale!r} is no weight of a level: choose one of {choices}.")
        if not self.floor > 0:
            raise ValueError(f"loss.floor={self.floor} stands for -log 0: choose a number above 0, such as 9.2.")

    def __call__(self, log_p_x0: Float[Tensor, "N K"], slots: Slots, process: Process) -> Float[Tensor, " N"]:
        assert isinstance(process, UniformDiffusion)
        if self.form == "nelbo":
            nats = _of_rates(log_p_x0, slots, process)
        elif self.form == "marginal":
            nats = _of_marginals(normalised(log_p_x0), slots, process)
        else:
            nats = _of_tokens(normalised(log_p_x0), slots, self.floor)
        if self.view_scale == "none":
            return nats
        ratio = process.schedule.mask_ratio(slots.t.double())
        mean = _mean_scale(self.view_scale, process.schedule, process.count)
        return nats * (_scale(self.view_scale, ratio, process.count) / mean).to(nats)


def _of_tokens(log_p_x0: Float[Tensor, "N K"], slots: Slots, floor: float) -> Float[Tensor, " N"]:
    """`onehot`, regrouped so that nothing cancels: (C - log p_x)(1 - p_x) + sum_{j ≠ x} p_j log p_j."""
    x = slots.x0[:, None]
    others = log_p_x0.exp().scatter(1, x, 0.0)
    surprise = -log_p_x0.gather(1, x).squeeze(1)
    return (floor + surprise) * others.sum(-1) + (others * log_p_x0.clamp(min=-200)).sum(-1)  # where 0 log 0 is 0


def _of_marginals(log_p_x0: Float[Tensor, "N K"], slots: Slots, process: UniformDiffusion) -> Float[Tensor, " N"]:
    ratio = process.schedule.mask_ratio(slots.t.double())
    alpha = 1 - ratio
    c = (process.count * alpha / ratio).to(log_p_x0)[:, None]
    x, p = slots.x0[:, None], log_p_x0.exp()
    p_x, others = p.gather(1, x), p.scatter(1, x, 0.0)
    rest = others.sum(-1, keepdim=True)
    towards = rest * torch.log1p(c * rest / (1 + c * p_x)) + (others * torch.log1p(c * others)).sum(-1, keepdim=True)
    return alpha.to(p) * towards.squeeze(1)


def _of_rates(log_p_x0: Float[Tensor, "N K"], slots: Slots, process: UniformDiffusion) -> Float[Tensor, " N"]:
    y, a, r, weight = Divergence.of(log_p_x0, slots, process.schedule, process.count, process.never)
    return weight * (r * y * log_one_plus(y, a)).sum(-1)


def _scale(view: str, ratio: Float[Tensor, "*n"], count: int) -> Float[Tensor, "*n"]:
    """What `view_scale` weighs a level by, in float64 and before it is divided by its mean."""
    alpha = 1 - ratio
    if view == "literal":
        w = torch.sigmoid(Gaussian(count).gamma(alpha) / 2)
        return w / (count * (1 - w) + w)
    return (ratio if view == "kappa" else count * alpha) / (count * alpha + ratio)


@cache
def _mean_scale(view: str, schedule: NoiseSchedule, count: int) -> float:
    """The mean of `_scale` over evenly spread times."""
    cells = 2**18  # `kappa` lives in the last 1/K of the straight line
    t = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    return _scale(view, schedule.mask_ratio(t), count).mean().item()
