"""How a run ends: its last step is validated and saved, and a request to stop is granted after the step at hand."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from torch.utils.data import get_worker_info

from dllm_lightning.callbacks.last import LastCheckpoint

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


class Ending(Checkpoint):
    """Sees to it that a run leaves its last step behind, whether it was done or stopped.

    Lightning validates, and so saves, every so many batches; here the last step of a run is validated too. Within
    `listening` a first Ctrl-C, SIGTERM or SIGUSR1 (of SLURM, before time is up) on any rank lets the optimizer step at
    hand finish, saves it as last.ckpt, and ends the run without an error; a job of SLURM is put back into the queue
    after SIGUSR1. A second Ctrl-C stops at once. It is a Checkpoint to come after the callbacks that still change
    something at the end of a step.
    """

    def __init__(self) -> None:
        self.asked = 0
        """The signal that asked for the end, if one did."""
        self.listens = self.stopped = False
        self.step, self.last = 0, float("inf")
        self.trains_in = self.waits_in = 0
        """The process that trains, and the one that waits for those it forked."""

    @contextmanager
    def listening(self, trainer: L.Trainer) -> Iterator[None]:
        """Answers to signals while the trainer fits, here and in the processes that it forks."""
        launcher = trainer.strategy.launcher
        self.waits_in = os.getpid() if launcher is not None and launcher.is_interactive_compatible else 0
        if threading.current_thread() is not threading.main_thread():
            yield  # signals are for the main thread
            return
        usual = {each: signal.signal(each, self._ask) for each in SIGNALS}
        self.listens = True
        try:
            yield
        finally:
            self.listens = False
            for each, handler in usual.items():
                signal.signal(each, handler)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.listens:
            for each in SIGNALS:  # Lightning has just taken SIGTERM for itself
                signal.signal(each, self._ask)
        self.trains_in = os.getpid()
        self.step, self.last = trainer.global_step, last_step(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            return  # gradients are being accumulated, and a checkpoint would lose them
        self.step = trainer.global_step
        if asked := self._anybody(trainer):
            self.asked, self.stopped = asked, True
            trainer.should_stop = True
            trainer.limit_val_batches = 0  # a stop would be validated first
            for each in trainer.checkpoint_callbacks:
                if isinstance(each, LastCheckpoint):
                    each.save(trainer)
                    if trainer.is_global_zero:
                        print(f"Saved step {self.step} as {each.file}", file=sys.stderr, flush=True)
        elif self.step >= self.last:
            trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.trains_in = 0
        if self.stopped and self.asked == getattr(signal, "SIGUSR1", None) and trainer.is_global_zero:
            requeue()

    def _anybody(self, trainer: L.Trainer) -> int:
        """The signal that any rank has got."""
        if trainer.world_size == 1 or not trainer.strategy.reduce_boolean_decision(bool(self.asked), all=False):
            return self.asked
        signals = [trainer.strategy.broadcast(self.asked, src=rank) for rank in range(trainer.world_size)]
        return max(signals)

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        if get_worker_info() is not None:  # a loader's worker: the process that it works for decides, and ends it
            if signum == signal.SIGTERM:
                os._exit(128 + signum)
            return
        if (self.asked and signum == signal.SIGINT) or os.getpid() not in (self.trains_in, self.waits_in):
            if signum == signal.SIGINT:
                raise KeyboardInterrupt
            sys.exit(128 + signum)
        self.asked = signum
        if os.getpid() == self.waits_in:
            for each in multiprocessing.active_children():
                if signum != signal.SIGINT and each.pid:  # Ctrl-C has reached them already
                    os.kill(each.pid, signum)
        elif os.environ.get("LOCAL_RANK", "0") == "0":
            again = " Ctrl-C again stops at once." if signum == signal.SIGINT else ""
            print(f"\nStopping when this step is done and saved.{again}", file=sys.stderr, flush=True)


def last_step(trainer: L.Trainer) -> float:
    """The step at which training will end, counted from where it stands: batches may have been of another size."""
    limit = float("inf") if trainer.max_steps < 0 else trainer.max_steps
    if trainer.max_epochs is None or trainer.max_epochs < 0 or trainer.num_training_batches == float("inf"):
        return limit
    together = trainer.accumulate_grad_batches
    begun = trainer.fit_loop.epoch_loop.batch_progress.current.ready // together
    left = math.ceil(trainer.num_training_batches / together) * (trainer.max_epochs - trainer.current_epoch) - begun
    return min(limit, trainer.global_step + left)


def requeue() -> None:
    """Asks SLURM to run this job again, where it is one of SLURM's."""
    job = os.environ.get("SLURM_JOB_ID")
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    if job is None:
        return
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"SLURM did not put job {job} back into its queue: {error}", file=sys.stderr, flush=True)
