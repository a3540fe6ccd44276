"""AdamW and the shape of its learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


@dataclass(frozen=True)
class AdamW:
    """AdamW with linear warm-up, then `decay`: cosine, linear or constant. One step of the schedule per optimizer step.

    `warmup` is a number of steps, or below 1 a fraction of the run. Weight decay leaves biases and norms alone.
    Raises ValueError for values that cannot train.
    """

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    warmup: float = 0.02
    decay: str = "cosine"

    def __post_init__(self) -> None:
        if self.decay not in _DECAYS:
            raise ValueError(
                f"optimizer.decay={self.decay!r} is no shape of a learning rate: choose {', '.join(_DECAYS)}."
            )
        if self.lr <= 0 or self.warmup < 0:
            raise ValueError(
                f"optimizer.lr={self.lr} and optimizer.warmup={self.warmup} must be positive (warmup may be 0)."
            )
        if (
            len(self.betas) != 2
            or not all(0 <= beta < 1 for beta in self.betas)
            or self.eps < 0
            or self.weight_decay < 0
        ):
            raise ValueError(
                f"optimizer.betas={list(self.betas)} must be two numbers from 0 to below 1, and "
                f"optimizer.eps={self.eps} and optimizer.weight_decay={self.weight_decay} must not be negative."
            )

    def optimizer(self, module: nn.Module) -> torch.optim.AdamW:
        """Fused where torch has a kernel for the parameters' device."""
        parameters = [p for p in module.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
        optimizer = torch.optim.AdamW(groups, self.lr, (self.betas[0], self.betas[1]), self.eps, fused=fused)
        # Under mixed precision Lightning will not clip beside an optimizer that offers to unscale gradients by itself.
        optimizer._step_supports_amp_scaling = False
        return optimizer

    def schedule(self, optimizer: torch.optim.Optimizer, steps: float) -> LambdaLR:
        """The learning rate over a run of `steps` optimizer steps.

        Raises ValueError for a run without an end, unless nothing here is a share of it.
        """
        if math.isinf(steps) and (self.decay != "constant" or 0 < self.warmup < 1):
            raise ValueError(
                f"This run has no end, by which optimizer.decay={self.decay} and optimizer.warmup={self.warmup} go: "
                f"give trainer.max_steps or trainer.max_epochs, or decay=constant and a warmup in steps."
            )
        warmup = int(self.warmup) if self.warmup >= 1 or not self.warmup else int(self.warmup * steps)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            done = min(1.0, (step - warmup) / max(1, steps - warmup))
            return {"cosine": 0.5 + 0.5 * math.cos(math.pi * done), "linear": 1.0 - done, "constant": 1.0}[self.decay]

        return LambdaLR(optimizer, factor)


def steps_of(part: float, name: str, steps: float) -> float:
    """A number of optimizer steps, where it may be written as a share (below 1) of a run of `steps`.

    Raises ValueError for a share of a run without an end; `name` is what the user calls it.
    """
    if part == 0 or part >= 1:
        return part
    if math.isinf(steps):
        raise ValueError(f"{name}={part} is a share of a run without an end: give trainer.max_steps, or steps.")
    return part * steps


_DECAYS = ("cosine", "linear", "constant")
