"""log p of one token per row, and its gradient, in the memory of the logits themselves.

A cross-entropy reads one number of each row of K = 50,000, and its gradient is p minus one there. Log-softmax and
gather, one after the other, fill five tables of the size of the logits to say so; this fills none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dllm_lightning.process.blocks import blocks


class LogTruth(torch.autograd.Function):
    """(logits (N K), x0 (N)) -> log p(x0) (N 1). The ids in `never` have no probability.

    Writes over the logits, which nobody may read after, and is differentiable once.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, x0: Tensor, never: Tensor) -> Tensor:
        table = logits.detach() if logits.dtype in (torch.float32, torch.float64) else logits.float()
        table.index_fill_(1, never.to(table.device), -torch.inf)
        truth, mass = table.new_empty(2, len(table), 1)
        for e, own, total, x in blocks(table, truth, mass, x0[:, None]):
            e -= e.amax(-1, keepdim=True)
            own.copy_(e.gather(1, x))
            total.copy_(e.exp_().sum(-1, keepdim=True))
        ctx.table, ctx.x0, ctx.mass = table, x0, mass
        return truth - mass.log()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """grad (1[k = x0] - p_k)."""
        table = ctx.table.mul_(-grad / ctx.mass)
        del ctx.table  # a second time it would be wrong
        return table.scatter_add_(1, ctx.x0[:, None], grad), None, None
