"""How a run ends: its last step is validated and saved, and Ctrl-C is a wish that is granted after the step at hand."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from torch.utils.data import get_worker_info


class Ending(Checkpoint):
    """Sees to it that a run leaves its last step behind, whether it was done or stopped.

    Lightning validates, and so saves, every so many batches; here the last step of a run is validated too. Within
    `listening` a first Ctrl-C (SIGINT) lets the optimizer step at hand finish, saves it as last.ckpt, and ends the run
    without an error; `asked` is then true. A second Ctrl-C stops at once. It is a Checkpoint to come after the
    callbacks that still change something at the end of a step.
    """

    def __init__(self) -> None:
        self.asked = self.stopped = False
        self.step, self.last = 0, float("inf")
        self.trains_in = self.waits_in = 0
        """The process that trains, and the one that waits for those it forked."""

    @contextmanager
    def listening(self, trainer: L.Trainer) -> Iterator[None]:
        """Answers to Ctrl-C while the trainer fits, here and in the processes that it forks."""
        launcher = trainer.strategy.launcher
        self.waits_in = os.getpid() if launcher is not None and launcher.is_interactive_compatible else 0
        if threading.current_thread() is not threading.main_thread():
            yield  # signals are for the main thread
            return
        usual = signal.signal(signal.SIGINT, self._ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, usual)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.trains_in = os.getpid()
        self.step, self.last = trainer.global_step, float(trainer.estimated_stepping_batches)

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        # Loggers have a count of their own, which misses a step when a run goes on from one validated out of turn.
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            return  # gradients are being accumulated, and a checkpoint would lose them
        self.step = trainer.global_step
        alone = trainer.world_size == 1
        if self.asked if alone else trainer.strategy.reduce_boolean_decision(self.asked, all=False):
            self.stopped = trainer.should_stop = True
            trainer.limit_val_batches = 0  # a stop would be validated first
            folders = [each.dirpath for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]
            if folders:
                trainer.save_checkpoint(Path(folders[0] or trainer.default_root_dir) / "last.ckpt")
        elif self.step >= self.last:
            trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.trains_in = 0

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        if get_worker_info() is not None:
            return  # a loader's worker: the process that it works for decides
        if self.asked or os.getpid() not in (self.trains_in, self.waits_in):
            raise KeyboardInterrupt
        self.asked = True
        if os.getpid() == self.trains_in and os.environ.get("LOCAL_RANK", "0") == "0":
            print(
                "\nStopping when this step is done and saved. Ctrl-C again stops at once.", file=sys.stderr, flush=True
            )
