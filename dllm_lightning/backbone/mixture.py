"""Mixed rows of an embedding table, whose gradient is one table, as that of plain ids is.

Autograd would fill one table (K D) for the tokens that are named and another for the mean row, and add them up; with
50,000 tokens that takes longer than all the rest of soft tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Mixture(torch.autograd.Function):
    """(table (K D), ids (M R), weight (M R), rest (M)) -> sum_r weight_r table[ids_r] + rest · mean row (M D).

    Only the table gets a gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        table: Float[Tensor, "K D"],
        ids: Int[Tensor, "M R"],
        weight: Float[Tensor, "M R"],
        rest: Float[Tensor, " M"],
    ) -> Float[Tensor, "M D"]:
        weight, rest = weight.to(table), rest.to(table)
        ctx.save_for_backward(ids, weight, rest)
        ctx.count = len(table)
        mixed = nn.functional.embedding_bag(ids, table, mode="sum", per_sample_weights=weight)
        return mixed + rest[:, None] * table.mean(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Float[Tensor, "M D"]) -> tuple[Tensor | None, ...]:
        ids, weight, rest = ctx.saved_tensors
        table = ((rest[:, None] * grad).sum(0) / ctx.count).repeat(ctx.count, 1)
        each = weight[:, :, None] * grad[:, None]
        return table.index_add_(0, ids.flatten(), each.flatten(0, 1)), None, None, None
