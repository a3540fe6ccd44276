"""How fast the true reverse step of uniform noise and the believed one diverge: the bound of Duo, in nats per slot.

With c = K alpha / (1 - alpha), x the clean token, z the token that is shown, and p the belief about x, the ratios of
the reverse rates towards state j are, in truth and in belief,

    r_j = (1 + c 1[j = x]) / (1 + c 1[z = x])        rho_j = (1 + c p_j) / (1 + c p_z)

and the bound is a generalised KL divergence between them (Duo, arXiv:2506.10892, equation 8):

    -alpha' / (K alpha) · sum_j r_j (y_j - log(1 + y_j)),        1 + y_j = rho_j / r_j.

This file says it without a one-hot vector and without losing digits; rate_function.py adds its gradient. Nearly clean
text has c = 10^9, and a sure network y = 10^-7. So y and 1 + y are each formed from the probabilities, never one from
the other, and neither 1 - alpha nor 1 - p_x is ever a difference.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_lightning.noise import NoiseSchedule
from dllm_lightning.types import Slots


class Level(NamedTuple):
    """How noisy each slot is: c and -alpha' / (K alpha), in float64."""

    c: Float[Tensor, "N 1"]
    weight: Float[Tensor, "N 1"]

    @classmethod
    def of(cls, t: Float[Tensor, " N"], schedule: NoiseSchedule, count: int) -> Level:
        time = t.double()[:, None]
        ratio = schedule.mask_ratio(time)
        alpha = (1 - ratio).clamp(min=1e-30)  # at pure noise the bound tends to 0, and so it does here, without 0/0
        return cls(count * alpha / ratio, -schedule.alpha_prime(time) / (count * alpha))


class Ratios(NamedTuple):
    """Every y of a row in seven numbers (float64).

    For j ≠ x they are y_j = scale (p_j - origin) and 1 + y_j = scale p_j + floor, and all have one r.
    """

    scale: Float[Tensor, "N 1"]
    origin: Float[Tensor, "N 1"]
    floor: Float[Tensor, "N 1"]
    r: Float[Tensor, "N 1"]
    y_x: Float[Tensor, "N 1"]
    a_x: Float[Tensor, "N 1"]
    """1 + y_x."""
    r_x: Float[Tensor, "N 1"]

    @classmethod
    def of(
        cls,
        c: Float[Tensor, "N 1"],
        p_x: Float[Tensor, "N 1"],
        p_z: Float[Tensor, "N 1"],
        rest: Float[Tensor, "N 1"],
        clean: Bool[Tensor, "N 1"],
    ) -> Ratios:
        """`rest` is 1 - p_x, summed over the other states; `clean` says where z = x."""
        shown, more = 1 + c * p_z, 1 + c
        lift = torch.where(clean, more, 1.0)
        return cls(
            scale=c * lift / shown,
            origin=torch.where(clean, -rest / more, p_z),
            floor=lift / shown,
            r=1 / lift,
            y_x=torch.where(clean, 0.0, -c * (rest + p_z * more) / (shown * more)),
            a_x=torch.where(clean, 1.0, (1 + c * p_x) / (shown * more)),
            r_x=torch.where(clean, 1.0, more),
        )


class Divergence(NamedTuple):
    """The tables y, a = 1 + y and r over all ids (N K), and the weight -alpha' / (K alpha) (N).

    An id that is no state has y = 0, so that it adds nothing to a sum of divergences.
    """

    y: Float[Tensor, "N K"]
    a: Float[Tensor, "N K"]
    r: Float[Tensor, "N K"]
    weight: Float[Tensor, " N"]

    @classmethod
    def of(
        cls, log_p_x0: Float[Tensor, "N K"], slots: Slots, schedule: NoiseSchedule, count: int, never: Int[Tensor, " U"]
    ) -> Divergence:
        """Of a belief that gives nothing to the ids in `never`."""
        x, z, never = slots.x0[:, None], slots.x_t[:, None], never.to(log_p_x0.device)
        level, p = Level.of(slots.t, schedule, count), normalised(log_p_x0).exp()
        p_x, p_z, rest = p.gather(1, x), p.gather(1, z), p.scatter(1, x, 0.0).sum(-1, keepdim=True)
        row = Ratios.of(level.c, p_x.double(), p_z.double(), rest.double(), x == z)
        scale, origin, floor, r, y_x, a_x, r_x = (number.to(p) for number in row)
        return cls(
            (scale * (p - origin)).scatter(1, x, y_x).index_fill(1, never, 0.0),
            (scale * p + floor).scatter(1, x, a_x).index_fill(1, never, 1.0),
            r.expand_as(p).scatter(1, x, r_x),
            level.weight.squeeze(1).to(p),
        )


def normalised(log_p_x0: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
    """The same belief. In float32 a log-softmax over 50,000 numbers leaves out up to 1e-5, and 1 - p_x may be less."""
    return log_p_x0 - log_p_x0.exp().sum(-1, keepdim=True).log()


def rate(
    log_p_x0: Float[Tensor, "N K"], slots: Slots, schedule: NoiseSchedule, count: int, never: Int[Tensor, " U"]
) -> Float[Tensor, " N"]:
    """Nats per slot, from a belief over the `count` states; the ids in `never` are none. Plainly differentiable."""
    y, a, r, weight = Divergence.of(log_p_x0, slots, schedule, count, never)
    return weight * (r * excess(y, a)).sum(-1)


def excess(y: Float[Tensor, "*n"], a: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """y - log(1 + y) ≥ 0, where a = 1 + y is known to all its digits.

    Near 0 from the series of the logarithm in v = y / (2 + y): v (y - 2 v² (1/3 + v²/5 + v⁴/7 + ...)).
    """
    v = y / (a + 1)
    square = v * v
    series = v * (y - 2 * square * (1 / 3 + square * (1 / 5 + square / 7)))
    return torch.where(y.abs() < near(y), series, y - a.log())


def log_one_plus(y: Float[Tensor, "*n"], a: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """log(1 + y), where a = 1 + y is known to all its digits."""
    close = y.abs() < near(y)
    return torch.where(close, torch.log1p(torch.where(close, y, 0.0)), a.log())


def near(y: Tensor) -> float:
    """Where to change over: beyond it the difference loses few digits, within it the series needs no more terms."""
    return 0.25 if y.dtype == torch.float32 else 0.01
