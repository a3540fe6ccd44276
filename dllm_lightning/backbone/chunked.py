"""Projection and score in chunks, so that no more than one chunk of logits exists at a time, backward included.

The gradient of a sum is the sum of the gradients of its parts. So each chunk is projected, scored and differentiated at
once, in the forward pass, and only the gradients of the states (N D) and of the head's parameters are kept. Nothing is
computed twice, and the peak does not depend on how many slots a batch asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Score = Callable[[Tensor, int, int], Tensor]
"""(logits (n K), start, stop) -> (n M) values for the slots start..stop; the first column is what is descended on."""


def score_in_chunks(
    head: Callable[[Tensor], Tensor],
    parameters: Sequence[nn.Parameter],
    states: Float[Tensor, "N D"],
    score: Score,
    weight: Float[Tensor, " N"],
    size: int,
) -> tuple[Float[Tensor, ""], Float[Tensor, "N M"]]:
    """The weighted sum of the first values, and all values without gradient. `parameters` are those of `head`."""
    if torch.is_grad_enabled():
        return _Chunked.apply(head, score, size, weight, states, *parameters)
    values = torch.cat([score(head(states[a:b]), a, b) for a, b in _ranges(len(states), size)])
    return (weight * values[:, 0]).sum(), values


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        head: Callable[[Tensor], Tensor],
        score: Score,
        size: int,
        weight: Tensor,
        states: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        totals, values = [], []
        grad_states = torch.empty_like(states)
        grads: list[Tensor | None] = [None] * len(parameters)
        for start, stop in _ranges(len(states), size):
            with torch.enable_grad():
                chunk = states[start:stop].detach().requires_grad_()
                scored = score(head(chunk), start, stop)
                total = (weight[start:stop] * scored[:, 0]).sum()
            grad_chunk, *grad_parameters = torch.autograd.grad(total, (chunk, *parameters), allow_unused=True)
            grad_states[start:stop] = grad_chunk
            grads = [
                b if a is None else a if b is None else a.add_(b) for a, b in zip(grads, grad_parameters, strict=True)
            ]
            totals.append(total.detach())
            values.append(scored.detach())
        ctx.save_for_backward(grad_states, *grads)
        all_values = torch.cat(values)
        ctx.mark_non_differentiable(all_values)
        return torch.stack(totals).sum(), all_values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [None if g is None else g * grad_total.to(g.dtype) for g in ctx.saved_tensors]
        return (None, None, None, None, *scaled)


def _ranges(n: int, size: int) -> list[tuple[int, int]]:
    """Cuts 0..n; a batch that asks for nothing still gets one empty cut, so that every parameter has a gradient."""
    return [(a, min(a + size, n)) for a in range(0, max(n, 1), size)]
