"""Projection and score in chunks, so that no more than one chunk of logits exists at a time, backward included.

The gradient of a sum is the sum of the gradients of its parts. So each chunk is projected, scored and differentiated at
once, in the forward pass, and only the gradients of the features (N D) and of the decoder are kept. Nothing is computed
twice, and the peak does not depend on how many slots a batch asks for.

All chunks use the same memory for their logits. Asking the system for a hundred megabytes and clearing their pages
takes as long as multiplying them out, and blocks that come and go by the thousand leave holes in the heap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Score = Callable[[Tensor, int, int], Tensor]
"""(logits (n K), start, stop) -> (n M) values for the slots start..stop; the first column is what is descended on.

The logits are the score's own, to overwrite as it likes.
"""


def score_in_chunks(
    decoder: nn.Linear, features: Float[Tensor, "N D"], score: Score, weight: Float[Tensor, " N"], size: int
) -> tuple[Float[Tensor, ""], Float[Tensor, "N M"]]:
    """The weighted sum of the first values, and all values without gradient."""
    if torch.is_grad_enabled():
        return _Chunked.apply(score, size, weight, features, decoder.weight, decoder.bias)
    chunks = _projected(features, decoder.weight, decoder.bias, size)
    values = torch.cat([score(logits, start, stop).clone() for logits, start, stop in chunks])
    return (weight * values[:, 0]).sum(), values


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, score: Score, size: int, weight: Tensor, features: Tensor, matrix: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        totals, values = [], []
        grad_features, grad_matrix = torch.empty_like(features), torch.zeros_like(matrix)
        grad_bias = None if bias is None else torch.zeros_like(bias)
        for logits, start, stop in _projected(features, matrix, bias, size):
            with torch.enable_grad():
                logits.requires_grad_()
                scored = score(logits, start, stop)
                total = (weight[start:stop] * scored[:, 0]).sum()
            (grad,) = torch.autograd.grad(total, logits)
            grad_features[start:stop] = grad @ matrix.to(grad.dtype)
            if ctx.needs_input_grad[4]:
                _add_product(grad_matrix, grad.T, features[start:stop])
            if grad_bias is not None:
                grad_bias += grad.sum(0, dtype=grad_bias.dtype)
            totals.append(total.detach())
            values.append(scored.detach().clone())  # it may be a view of the logits
        ctx.save_for_backward(grad_features, grad_matrix, grad_bias)
        all_values = torch.cat(values)
        ctx.mark_non_differentiable(all_values)
        return torch.stack(totals).sum(), all_values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [None if g is None else g * grad_total.to(g.dtype) for g in ctx.saved_tensors]
        return (None, None, None, *scaled)


def _projected(
    features: Float[Tensor, "N D"], matrix: Float[Tensor, "K D"], bias: Float[Tensor, " K"] | None, size: int
) -> Iterator[tuple[Float[Tensor, "n K"], int, int]]:
    """The logits of each cut of 0..N, in the precision of autocast, and where it starts and stops.

    Each cut has the memory of the one before. A batch that asks for nothing still gets one empty cut.
    """
    device, total = features.device.type, len(features)
    lower = torch.is_autocast_enabled(device)
    kind = torch.get_autocast_dtype(device) if lower else features.dtype
    features, matrix, bias = features.to(kind), matrix.to(kind), None if bias is None else bias.to(kind)
    memory = features.new_empty(min(size, total), len(matrix))
    for start in range(0, max(total, 1), size):
        stop = min(start + size, total)
        logits = memory[: stop - start]
        _project(features[start:stop], matrix, bias, out=logits)
        yield logits.detach(), start, stop


TILE = 1024
"""Rows of the matrix that are multiplied at a time on a CPU, so that they and their logits stay in its cache."""


def _project(
    features: Float[Tensor, "n D"], matrix: Float[Tensor, "K D"], bias: Float[Tensor, " K"] | None, out: Tensor
) -> None:
    """out (n K) = features @ matrix.T + bias."""
    size = TILE if matrix.device.type == "cpu" else len(matrix)
    for start in range(0, len(matrix), size):
        rows = slice(start, start + size)
        if bias is None:
            torch.mm(features, matrix[rows].T, out=out[:, rows])
        else:
            torch.addmm(bias[rows], features, matrix[rows].T, out=out[:, rows])


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, in place where all have one precision."""
    if left.dtype == right.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right.to(left.dtype)
