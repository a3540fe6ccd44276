"""Tokens per second, padding not counted."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.throughput import Throughput

from dllm_lightning.types import Corrupted


class TokensPerSecond(L.Callback):
    """Logs `train/tokens_per_second`, over all devices, as an average over the last `window` batches.

    Lightning's ThroughputMonitor counts padding, and does not reach the progress bar; its arithmetic is used here.
    """

    def __init__(self, window: int = 20) -> None:
        if window < 2:
            raise ValueError(f"callbacks.speed.window={window}: a speed needs at least 2 batches.")
        self.throughput = Throughput(window_size=window)
        self.batches = self.tokens = 0
        self.began = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.throughput.reset()
        self.batches = self.tokens = 0
        self.began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Corrupted, batch_idx: int
    ) -> None:
        self.batches += 1
        self.tokens += int((batch.clean.segment > 0).sum())
        now = time.perf_counter() - self.began
        self.throughput.update(time=now, batches=self.batches, samples=self.batches, lengths=self.tokens)
        speed = self.throughput.compute().get("device/items_per_sec")
        if speed is not None:
            total = torch.tensor(float(speed) * trainer.world_size)
            pl_module.log("train/tokens_per_second", total, prog_bar=True)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.on_train_start(trainer, pl_module)  # a pause is no slowness
