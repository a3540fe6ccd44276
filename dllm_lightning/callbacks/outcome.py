"""What a run came to, for whoever reads its folder later: a sweep, a table, a script."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from dllm_lightning.callbacks.ending import Ending
from dllm_lightning.loggers import go_on
from dllm_lightning.result import write_result


class Outcome(L.Callback):
    """Rank zero writes `result.json`: whether the run is done or was stopped, its steps, seconds and last metrics.

    What a killed run had logged beyond its checkpoint is dropped before it goes on, and steps are counted right then.
    It comes before the callbacks that log.
    """

    def __init__(self) -> None:
        self.began, self.seconds = time.perf_counter(), 0.0
        self.before = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.began = time.perf_counter()
        if trainer.is_global_zero:
            go_on(trainer.loggers, Path(trainer.default_root_dir), trainer.global_step)

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        # Loggers have a count of their own, which misses a step, or has one too many, when a run goes on.
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds = self.took()

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.seconds:
            self.write(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self.write(trainer)

    def write(self, trainer: L.Trainer) -> None:
        if not trainer.is_global_zero:
            return
        asked = [each.asked for each in trainer.checkpoint_callbacks if isinstance(each, Ending) and each.stopped]
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        result: dict[str, Any] = {
            "status": "stopped" if asked else "done",
            "signal": asked[0] if asked else None,
            "metrics": metrics,
        }
        result |= {"steps": trainer.global_step, "seconds": round(self.seconds or self.before, 1)}
        write_result(Path(trainer.default_root_dir), result)

    def took(self) -> float:
        return self.before + time.perf_counter() - self.began

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.took()}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.before = state["seconds"]
