"""The bound of uniform noise straight from logits, and its gradient, in the memory of the logits themselves.

Autograd would keep a dozen tables of the size of the logits to differentiate `rate`. Here a few rows at a time are
worked on, in memory that stays in a cache, and their gradient takes the place of their logits.

With w_j = c p_j, and y_0 for the y of a state that gets no belief, every state j but x and z has

    1 + y_j = (1 + y_0)(1 + w_j)        g(y_j) = g(w_j) + g(y_0) + y_0 w_j        h_j = h_0 + (1 - h_0) f_j

where g(y) = y - log(1 + y), h = y / (1 + y) and f_j = w_j / (1 + w_j). So of the K numbers of a row only two sums are
needed, those of g(w) and of w f; all else is said in a few float64 numbers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from dllm_lightning.noise import NoiseSchedule
from dllm_lightning.process.blocks import blocks, rows_at_a_time
from dllm_lightning.process.rate import Level, Ratios, excess, near
from dllm_lightning.types import Slots


class _Others(NamedTuple):
    """What is known of all states but x and z before their w are summed."""

    per_e: Float[Tensor, "N 1"]
    """w / e, where e is the exponential of the logit."""
    sum_w: Float[Tensor, "N 1"]
    known: Float[Tensor, "N 1"]
    """All of the bound, over r, but for the sum of g(w)."""
    flat: Float[Tensor, "N 1"]
    """The slope in their logits is w (flat - bend pull) + steep w f, where pull is the sum of w f."""
    bend: Float[Tensor, "N 1"]
    steep: Float[Tensor, "N 1"]


class Rate(torch.autograd.Function):
    """(logits (N K), slots, schedule, count, never) -> `rate` of their softmax (N). The ids in `never` are no states.

    With r, rho, y as in rate.py and h as above the gradient is

        A p_k (h_k - 1[k = z] Y - H),      A = -alpha' / ((1 - alpha)(1 + c p_z)),
        Y = sum_j r_j y_j = sum_j rho_j - r_j,      H = sum_j p_j h_j - p_z Y.

    Writes over the logits, which nobody may read after, and is differentiable once.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, slots: Slots, schedule: NoiseSchedule, count: int, never: Tensor) -> Tensor:
        table = logits.detach() if logits.dtype in (torch.float32, torch.float64) else logits.float()
        x, z = slots.x0[:, None], slots.x_t[:, None]
        (c, weight), clean = Level.of(slots.t, schedule, count), x == z

        e_x, e_z, e_others = _exponentials(table, x, z, never.to(table.device))
        mass = e_others + e_x + torch.where(clean, 0.0, e_z)
        p_x, p_z, p_others = e_x / mass, e_z / mass, e_others / mass
        rest = p_others + torch.where(clean, 0.0, p_z)  # 1 - p_x
        row = Ratios.of(c, p_x, p_z, rest, clean)
        y_0, a_0, shown = -row.scale * row.origin, row.floor, 1 + c * p_z
        known = (count - 2 + clean.long()) * excess(y_0, a_0) + y_0 * c * p_others
        known += row.r_x / row.r * excess(row.y_x, row.a_x)

        h_0, h_x = y_0 / a_0, row.y_x / row.a_x
        surplus = c * (count + c) / shown * torch.where(clean, rest / (1 + c), -p_z)  # Y
        front, own = weight / shown, p_x * h_x - p_z * surplus  # A / c, and what x and z add to H
        flat, steep = front * (h_0 - h_0 * p_others - own), front / a_0
        others = _Others((c / mass).to(table), c * p_others, known, flat, steep / c, steep.to(table))
        sure, top = _sure(table, torch.maximum(e_x, e_z), mass)
        gained, pull = _descend(table, others, ctx.needs_input_grad[0])

        if ctx.needs_input_grad[0]:
            theirs = h_0 * p_others + pull / (a_0 * c)  # what the others add to H
            slope_x = torch.where(clean, -surplus * rest, h_x * rest + p_z * surplus) - theirs
            slope_z = -surplus * (p_others + p_x) - p_x * h_x - theirs
            table.scatter_(1, z, (c * front * p_z * slope_z).to(table))
            table.scatter_(1, x, (c * front * p_x * slope_x).to(table))
            # The slopes of a softmax sum to 0. Where p_k is nearly 1, its own was lost in rounding.
            slopes = table[sure].scatter_(1, top, 0.0)
            table[sure] = slopes.scatter_(1, top, -slopes.sum(-1, keepdim=True))
        ctx.table = table
        return (weight * row.r * (known + gained)).squeeze(1).to(table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        table = ctx.table.mul_(grad[:, None])
        del ctx.table  # a second time it would be wrong
        return table, None, None, None, None


def _exponentials(
    table: Float[Tensor, "N K"], x: Int[Tensor, "N 1"], z: Int[Tensor, "N 1"], never: Int[Tensor, " U"]
) -> tuple[Float[Tensor, "N 1"], Float[Tensor, "N 1"], Float[Tensor, "N 1"]]:
    """Makes the logits e = exp(logit - largest), but 0 at x, at z and where there is no state.

    Returned are e of x and of z, and the sum of all others, in float64.
    """
    table.index_fill_(1, never, -torch.inf)
    e_x, e_z, e_others = torch.empty(3, len(table), 1, dtype=torch.float64, device=table.device)
    for e, at_x, at_z, of_x, of_z, of_others in blocks(table, x, z, e_x, e_z, e_others):
        e -= e.amax(-1, keepdim=True)
        of_x.copy_(e.gather(1, at_x))
        of_z.copy_(e.gather(1, at_z))
        of_others.copy_(e.exp_().scatter_(1, at_x, 0.0).scatter_(1, at_z, 0.0).sum(-1, keepdim=True))
    return e_x.exp_(), e_z.exp_(), e_others


def _sure(
    table: Float[Tensor, "N K"], e: Float[Tensor, "N 1"], mass: Float[Tensor, "N 1"]
) -> tuple[Int[Tensor, " n"], Int[Tensor, "n 1"]]:
    """The rows in which one of the others has more than half of the belief, and which. The largest e is 1."""
    sure = ((mass < 2.0) & (e < 1.0)).squeeze(1).nonzero().squeeze(1)
    return sure, table[sure].argmax(-1, keepdim=True)


def _descend(
    table: Float[Tensor, "N K"], others: _Others, gradient: bool
) -> tuple[Float[Tensor, "N 1"], Float[Tensor, "N 1"]]:
    """The sums of g(w) and of w f over each row, in float64. The exponentials become w, and then the slopes.

    The sum of g(w) is sum w - log((1 + w_1)(1 + w_2) ...), and costs little where four numbers share a logarithm. But
    it has few digits where all of the bound is small beside sum w, or beside K: of a sure belief, or next to pure
    noise. Such rows are summed with care, and so are those whose products overflow.
    """
    gained, pull = torch.empty_like(others.known), torch.zeros_like(others.known)
    spare = [table.new_empty(min(rows_at_a_time(table), len(table)), table.shape[1]) for _ in range(5)]
    for w, g, w_f, per_e, sum_w, known, flat, bend, steep in blocks(table, gained, pull, *others):
        u = torch.add(w.mul_(per_e), 1, out=spare[0][: len(w)])
        torch.sub(sum_w, _sum_of_logs(u), out=g)
        few = (g + known < sum_w / 5 + w.shape[1] / 50).squeeze(1).nonzero().squeeze(1)
        if len(few):
            g[few] = _sum_of_excess(w, few, spare[1:])
        if gradient:
            products = torch.div(w, u, out=u).mul_(w)
            w_f.copy_(products.sum(-1, keepdim=True))
            w.mul_((flat - bend * w_f).to(w)).addcmul_(products, steep)
    return gained, pull


def _sum_of_logs(u: Float[Tensor, "n K"]) -> Float[Tensor, "n 1"]:
    """Of each row, in float64; four numbers share a logarithm."""
    quarter = u.shape[1] // 4
    fours, left = u[:, : 4 * quarter].unflatten(1, (4, quarter)), u[:, 4 * quarter :]
    return fours.prod(1).log_().sum(-1, keepdim=True).double() + left.log().sum(-1, keepdim=True)


def _sum_of_excess(w: Float[Tensor, "n K"], rows: Int[Tensor, " m"], spare: list[Tensor]) -> Float[Tensor, "m 1"]:
    """The sum of `excess` over each of these rows, in float64, without asking for memory."""
    some, v, square, series = (table[: len(rows)] for table in spare)
    w = torch.index_select(w, 0, rows, out=some)
    torch.div(w, torch.add(w, 2, out=v), out=v)
    torch.mul(v, v, out=square)
    torch.mul(square, 1 / 7, out=series).add_(1 / 5).mul_(square).add_(1 / 3)
    series.mul_(square).mul_(-2).add_(w).mul_(v)
    torch.sub(w, torch.add(w, 1, out=v).log_(), out=square)
    inside = torch.lt(w, near(w), out=v)  # a choice by factors of 0 and 1 is quicker than `where`
    return series.mul_(inside).addcmul_(square, torch.rsub(inside, 1)).sum(-1, keepdim=True).double()
