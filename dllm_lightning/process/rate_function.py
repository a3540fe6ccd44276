"""The bound of uniform noise straight from logits, and its gradient, in the memory of the logits themselves.

Autograd would keep a dozen tables of the size of the logits to differentiate `rate`. Here a few rows at a time are
worked on, in the same few tables that fit a cache, and their gradient takes the place of their logits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dllm_lightning.noise import NoiseSchedule
from dllm_lightning.process.rate import Level, Ratios, excess, near
from dllm_lightning.types import Slots

BLOCK = {"cpu": 2**18}
"""Logits that are worked on at a time, by device: five tables of them stay in a cache."""
LARGE_BLOCK = 2**23
"""The same for devices that want to be kept busy."""


class Rate(torch.autograd.Function):
    """(logits (N K), slots, schedule, count, never) -> `rate` of their softmax (N). The ids in `never` are no states.

    With r, rho, y as in rate.py and h_j = y_j / (1 + y_j) the gradient is

        A p_k (h_k - 1[k = z] Y - H),      A = -alpha' / ((1 - alpha)(1 + c p_z)),
        Y = sum_j r_j y_j = sum_j rho_j - r_j,      H = sum_j p_j h_j - p_z Y.

    Writes over the logits, which nobody may read after, and is differentiable once.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, slots: Slots, schedule: NoiseSchedule, count: int, never: Tensor) -> Tensor:
        table = logits.detach() if logits.dtype in (torch.float32, torch.float64) else logits.float()
        x, z, never = slots.x0[:, None], slots.x_t[:, None], never.to(table.device)
        level = Level.of(slots.t, schedule, count)
        c, clean = level.c, x == z

        e_x, e_z = _exponentials(table, x, z, never)  # and the table is exp(logits), up to a factor for each row
        others = table.sum(-1, keepdim=True).double()
        mass = others + e_x
        p_x, p_z, rest = e_x / mass, e_z / mass, others / mass
        sure, top = _sure(table, x, e_x, mass)
        row = Ratios.of(c, p_x, p_z, rest, clean)

        h_x, shown = row.y_x / row.a_x, 1 + c * p_z
        rho_minus_r = c * (count + c) / shown * torch.where(clean, rest / (1 + c), -p_z)  # Y
        front = level.weight * c / shown  # A
        own = p_x * h_x - p_z * rho_minus_r
        numbers = row.scale / mass, row.origin * mass, row.floor, 1 / mass, own, front / mass
        total, pull = torch.empty_like(mass), torch.empty_like(mass)
        for at, spare in _blocks(table):
            some = [number[at].to(table) for number in numbers]
            total[at], pull[at] = _descend(table[at], x[at], z[at], never, some, spare, ctx.needs_input_grad[0])

        if ctx.needs_input_grad[0]:
            mean = pull / mass + own  # H, to more digits than the others needed: where p_x is nearly 1, so is this h_x
            table.scatter_(1, z, (front * p_z * (-rho_minus_r - mean)).to(table))
            table.scatter_(1, x, (front * p_x * (h_x - torch.where(clean, rho_minus_r, 0.0) - mean)).to(table))
            # The slopes of a softmax sum to 0. That of the surest token is lost in rounding where p_k is nearly 1.
            slopes = table[sure].scatter_(1, top, 0.0)
            table[sure] = slopes.scatter_(1, top, -slopes.sum(-1, keepdim=True))
        ctx.table = table
        return (level.weight * (row.r * total + row.r_x * excess(row.y_x, row.a_x))).squeeze(1).to(table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        table = ctx.table.mul_(grad[:, None])
        del ctx.table  # a second time it would be wrong
        return table, None, None, None, None


def _exponentials(table: Tensor, x: Tensor, z: Tensor, never: Tensor) -> tuple[Tensor, Tensor]:
    """Makes the logits exp(logit - largest), 0 at x and where there is no state; what x and z had, in float64."""
    table -= table.index_fill_(1, never, -torch.inf).amax(-1, keepdim=True)
    e_x, e_z = table.gather(1, x).double().exp(), table.gather(1, z).double().exp()
    table.exp_().scatter_(1, x, 0.0)
    return e_x, e_z


def _sure(table: Tensor, x: Tensor, e_x: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """The rows in which one token has more than half of the belief (the largest exponential is 1), and that token."""
    sure = (mass.squeeze(1) < 2.0).nonzero().squeeze(1)
    most, other = table[sure].max(-1, keepdim=True)
    return sure, torch.where(e_x[sure] >= most, x[sure], other)


def _blocks(table: Tensor) -> Iterator[tuple[slice, list[Tensor]]]:
    """A few rows at a time, and five tables of their size to work in: the same memory for all.

    Memory that is asked for at every operation, and given back, takes longer to get than to fill.
    """
    size = BLOCK.get(table.device.type, LARGE_BLOCK) // max(1, table.shape[1])
    size = min(max(1, size), len(table))
    spare = table.new_empty(5, size, table.shape[1])
    for start in range(0, len(table), max(1, size)):
        stop = min(start + size, len(table))
        yield slice(start, stop), list(spare[:, : stop - start])


def _descend(
    table: Tensor, x: Tensor, z: Tensor, never: Tensor, numbers: list[Tensor], spare: list[Tensor], gradient: bool
) -> tuple[Tensor, Tensor]:
    """Sums over j ≠ x of y_j - log(1 + y_j) and of e_j h_j; the exponentials e become the gradient, but for x and z."""
    scale, origin, floor, normal, own, front = numbers
    y = torch.sub(table, origin, out=spare[0]).mul_(scale)
    a = torch.mul(table, scale, out=spare[1]).add_(floor)
    for number, none in ((y, 0.0), (a, 1.0)):  # x has its own y, that of z is exactly 0, and some ids are no states
        number.scatter_(1, x, none).scatter_(1, z, none).index_fill_(1, never, none)
    total = _excess(y, a, *spare[2:])
    if not gradient:
        return total, torch.zeros_like(total)
    h = y.div_(a)
    pull = torch.mul(table, h, out=a).sum(-1, keepdim=True)
    table.mul_(h.sub_(pull * normal + own).mul_(front))
    return total, pull


def _excess(y: Tensor, a: Tensor, v: Tensor, square: Tensor, series: Tensor) -> Tensor:
    """The sum of `excess` over each row, in spare memory; a choice by factors of 0 and 1 is quicker than `where`."""
    torch.div(y, torch.add(a, 1, out=v), out=v)
    torch.mul(v, v, out=square)
    torch.add(torch.full((), 1 / 5).to(y), square, alpha=1 / 7, out=series).mul_(square).add_(1 / 3)
    torch.addcmul(y, series, square, value=-2, out=series).mul_(v)
    beyond = torch.sub(y, torch.log(a, out=square), out=square)
    inside = torch.lt(torch.abs(y, out=v), near(y), out=v)
    series.mul_(inside)
    return series.addcmul_(beyond, torch.rsub(inside, 1)).sum(-1, keepdim=True)
