"""The bar of a run: in place in a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar

_SHORT = {"train/loss": "loss", "val/nelbo": "nelbo", "val/exact_match": "exact", "train/tokens_per_second": "tokens/s"}


def _shortened(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics of the bar under short names, in reading order, tokens/s as a whole number."""
    shown = {short: metrics[name] for name, short in _SHORT.items() if name in metrics}
    if "tokens/s" in shown:
        shown["tokens/s"] = str(round(float(shown["tokens/s"])))
    return shown


class _InPlace(RichProgressBar):
    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        return _shortened(dict(super().get_metrics(trainer, pl_module)))


class _Lines(TQDMProgressBar):
    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        return _shortened(dict(super().get_metrics(trainer, pl_module)))


def Progress(refresh_rate: int = 10) -> ProgressBar:
    """Lightning's bar with loss, NELBO and tokens/s. Without a terminal it moves 20 times less often."""
    if sys.stdout.isatty():
        return _InPlace(refresh_rate=refresh_rate, leave=True)
    return _Lines(refresh_rate=20 * refresh_rate)
