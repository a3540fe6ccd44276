"""A step that would put numbers into the weights that are none is skipped, counted, and in the end explained."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor

from dllm_lightning.loss import surprise
from dllm_lightning.types import Corrupted


class NotFinite(ValueError):
    """Too many steps in a row had no finite loss or gradient."""


class BadSteps(L.Callback):
    """Skips an optimizer step on all ranks when the loss or the gradient of any is not finite.

    The step still counts as one: the learning rate, the noise and the data move on, weights and moments stay. The
    number of such steps is logged as `train/bad_steps`. `limit` of them in a row raise NotFinite.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"trainer.max_bad_steps={limit}: give 1 or more; 1 stops at the first such step.")
        self.limit = limit
        self.total = self.in_a_row = 0
        self.batches: list[Corrupted] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Corrupted, batch_idx: int
    ) -> None:
        self.batches.append(batch)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if torch.isfinite(pl_module.totals()[0]) & torch.isfinite(norm(gradients)):  # the same on all ranks
            self.in_a_row = 0
        else:
            self.total, self.in_a_row = self.total + 1, self.in_a_row + 1
            if self.in_a_row >= self.limit:
                raise NotFinite(self.sentence(trainer, pl_module))
            optimizer.zero_grad(set_to_none=True)  # an optimizer leaves alone what has no gradient
        if self.total:
            pl_module.log("train/bad_steps", float(self.total))
        self.batches.clear()

    def sentence(self, trainer: L.Trainer, module: Any) -> str:
        """What is wrong and where, the same on every rank: each looks at its own rows."""
        with trainer.precision_plugin.val_step_context():
            mine = self.culprits(trainer, module)
        said = [trainer.strategy.broadcast(mine, src=rank) for rank in range(trainer.world_size)]
        found = [f"on rank {rank} by {each}" for rank, each in enumerate(said) if each]
        whole = "the gradient is to blame, for every row has a finite loss"
        before = "step" if self.limit == 2 else f"{self.limit - 1} steps"
        times = f", as in the {before} before it" if self.limit > 1 else ""
        return (
            f"At step {trainer.global_step} the loss or the gradient is not finite{times}: "
            f"{'caused ' + '; '.join(found) if found else whole}. "
            f"Look at these rows, lower optimizer.lr, or allow more with trainer.max_bad_steps=N."
        )

    @torch.no_grad()
    def culprits(self, trainer: L.Trainer, module: Any) -> str:
        """The rows of this rank that have no finite loss."""
        named = []
        for number, batch in enumerate(self.batches):
            slots = batch.slots()

            def score(logits: Tensor, start: int, stop: int) -> Tensor:
                chunk = slots.chunk(start, stop)  # noqa: B023, read within this turn of the loop
                return surprise(module.process.log_p_x0(logits, chunk), chunk)[:, None]

            _, nats = module(batch, module.training_process, score=score)
            rows = slots.at[~torch.isfinite(nats[:, 0])].div(batch.x_t.shape[1], rounding_mode="floor").unique()
            named += [f"row {row} of batch {number} ({self.text(trainer, batch, row)})" for row in rows.tolist()]
        return ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")

    def text(self, trainer: Any, batch: Corrupted, row: int) -> str:
        """How the row begins."""
        ids = batch.clean.ids[row][batch.clean.segment[row] > 0]
        start = ids[:40].tolist()
        tokenizer = getattr(trainer.datamodule, "tokenizer", None)
        written = tokenizer.decode(start) if tokenizer is not None else str(start)
        return repr(written if len(written) <= 60 else f"{written[:60]} ...")

    def state_dict(self) -> dict[str, int]:
        return {"total": self.total, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.total, self.in_a_row = state["total"], state["in_a_row"]


def norm(gradients: list[Tensor]) -> Tensor:
    """Their common 2-norm: finite exactly when all of them are; the same on all ranks that share a sharded one."""
    whole = torch.nn.utils.get_total_norm(gradients)
    return whole.full_tensor() if hasattr(whole, "full_tensor") else whole
