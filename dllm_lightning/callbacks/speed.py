"""Tokens per second, padding not counted."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch

from dllm_lightning.types import Corrupted


class TokensPerSecond(L.Callback):
    """Logs `train/tokens_per_second`, over all devices: an average over `window` batches, and then over the next ones.

    Lightning's ThroughputMonitor counts padding, and does not reach the progress bar. Tokens are counted on the device,
    and read once per window, so that no step waits for it.
    """

    def __init__(self, window: int = 20) -> None:
        if window < 1:
            raise ValueError(f"callbacks.speed.window={window}: a speed needs at least 1 batch.")
        self.window = window
        self.batches = 0
        self.tokens = torch.zeros((), dtype=torch.long)
        self.began = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.batches = -1  # the next batch warms up: its end starts the clock

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Corrupted, batch_idx: int
    ) -> None:
        self.batches += 1
        if self.batches:
            self.tokens += (batch.clean.segment > 0).sum()
        if self.batches in (1, self.window):
            speed = float(self.tokens) * trainer.world_size / (time.perf_counter() - self.began)
            pl_module.log("train/tokens_per_second", speed, prog_bar=True)
        if self.batches in (0, self.window):
            self.batches, self.began = 0, time.perf_counter()
            self.tokens = torch.zeros_like(self.tokens, device=batch.clean.segment.device)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.on_train_start(trainer, pl_module)  # a pause is no slowness
