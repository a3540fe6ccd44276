"""What a run goes on from: its newest state, saved between two optimizer steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from dllm_lightning.saving import LAST


class LastCheckpoint(Checkpoint):
    """Saves `last.ckpt` in `dirpath` after each validation, and after every `every_n_steps` steps in between.

    A checkpoint holds no gradient, so one that falls due among batches whose gradients are being accumulated waits for
    the end of the step. It is written when the next batch starts, after all that the step has logged, and loggers write
    theirs first: whoever goes on from it does what the run itself did, and its curves have no gap.
    """

    def __init__(self, dirpath: str, every_n_steps: int | None = None) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"callbacks.last.every_n_steps={every_n_steps}: give 1 or more, or null.")
        self.file, self.every_n_steps = Path(dirpath) / LAST, every_n_steps
        self.due, self.step, self.in_hand = False, 0, 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.due, self.step = False, trainer.global_step

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step > self.step:
            self.step = trainer.global_step
            self.due |= bool(self.every_n_steps) and self.step % (self.every_n_steps or 1) == 0
        if self.due and pl_module.between_steps:
            self.save(trainer, in_hand=1)

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        self.due = True
        if pl_module.between_steps:
            self.save(trainer)

    def save(self, trainer: L.Trainer, in_hand: int = 0) -> None:
        """Saves now; `in_hand` batches came from the loader and are not trained on yet."""
        for logger in trainer.loggers:
            logger.save()
        loader: Any = trainer.train_dataloader
        self.in_hand = loader.in_hand = in_hand
        trainer.save_checkpoint(self.file)
        self.in_hand = loader.in_hand = 0
        self.due = False

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Counts the batch in hand as not begun, as the loader does."""
        if self.in_hand:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
            for counts in (progress["total"], progress["current"]):
                counts.update(dict.fromkeys(counts, counts["completed"]))
            progress["is_last_batch"] = False
