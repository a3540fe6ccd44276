"""Annealing: the temperature of soft tokens over a run, as a function of the global step and of nothing else."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import lightning as L

from dllm_lightning.model.optimizer import steps_of

Shape = Literal["log_linear", "linear", "cosine", "constant"]


class TemperatureAnnealing(L.Callback):
    """Takes a module's `tau` from `first` to `last` between the steps `begin` and `end`; before and after it stands.

    `shape` log_linear: a straight line in log tau. linear: in tau. cosine: half a wave, flat at both ends. constant:
    `first` until `end`, then `last`. `begin` and `end` are steps, or shares of the run where they are below 1; without
    an `end` the curve ends with the module's curriculum.

    Logs `train/tau`. Raises ValueError for a curve that cannot be drawn.
    """

    def __init__(
        self,
        first: float = 1e-2,
        last: float = 1e-3,
        begin: float = 0.0,
        end: float | None = None,
        shape: Shape = "log_linear",
    ) -> None:
        if shape not in get_args(Shape):
            raise ValueError(
                f"callbacks.temperature.shape={shape} is no curve: choose one of {', '.join(get_args(Shape))}."
            )
        if first < 0 or last < 0:
            raise ValueError(
                f"callbacks.temperature.first={first} and callbacks.temperature.last={last} are temperatures: "
                f"give 0 or more."
            )
        if shape == "log_linear" and not first * last > 0:
            raise ValueError(
                f"callbacks.temperature goes from {first} to {last}, and no logarithm reaches 0: "
                f"use shape=linear, or a last above 0."
            )
        if begin < 0 or (end is not None and end < 0):
            raise ValueError(
                f"callbacks.temperature.begin={begin} and callbacks.temperature.end={end} are steps or shares of the "
                f"run: give 0 or more."
            )
        self.first, self.last, self.begin, self.end, self.shape = first, last, begin, end, shape

    def tau(self, step: int, begin: float, end: float) -> float:
        """The temperature of optimizer step `step`, counted from 0, on a curve between two steps."""
        if step >= end:
            return self.last
        done = max(0.0, (step - begin) / (end - begin)) if end > begin else 0.0
        if self.shape == "constant":
            return self.first
        if self.shape == "log_linear":
            return math.exp((1 - done) * math.log(self.first) + done * math.log(self.last))
        if self.shape == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        return (1 - done) * self.first + done * self.last

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._turn(trainer, pl_module)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        pl_module.log("train/tau", pl_module.tau)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Before the next batch is noised, which happens before it starts."""
        self._turn(trainer, pl_module)

    def _turn(self, trainer: L.Trainer, module: Any) -> None:
        begin = steps_of(self.begin, "callbacks.temperature.begin", module.run_steps)
        end = module.curriculum_steps
        if self.end is not None:
            end = steps_of(self.end, "callbacks.temperature.end", module.run_steps)
        module.tau = self.tau(trainer.global_step, begin, end)
