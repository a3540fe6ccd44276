"""The last word of a run: what came out, where it is, and how to talk to it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from dllm_lightning.callbacks.ending import Ending
from dllm_lightning.saving import PREVIOUS


class Summary(L.Callback):
    """Counts the time of training, and prints the summary when a fit, or a validation for its own sake, is over."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.trained = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.began = time.perf_counter()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.trained = time.perf_counter() - self.began

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.trained:
            self.report(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self.report(trainer)

    def report(self, trainer: L.Trainer) -> None:
        """Rank zero prints the table; the metrics are those of the last validation."""
        if not trainer.is_global_zero:
            return
        from rich.console import Console
        from rich.panel import Panel
        from rich.table import Table

        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        took = f" in {self.trained:.0f} s" if self.trained else ""
        rows = [("trained", f"{trainer.global_step} steps{took}")]
        if "val/nelbo" in metrics:
            error, unigram = metrics.get("val/nelbo_error", 0.0), metrics.get("val/unigram_entropy", float("nan"))
            rows.append(("val/nelbo", f"{metrics['val/nelbo']:.3f} ± {error:.3f} nats per answer token"))
            rows.append(("", f"(perplexity {metrics['val/ppl']:.1f}; token frequencies alone score {unigram:.3f})"))
        if "val/exact_match" in metrics:
            rows.append(("val/exact_match", f"{metrics['val/exact_match']:.1%} of unseen questions"))
        folder = _short(Path(trainer.default_root_dir))
        rows.append(("folder", str(folder)))
        rows += [("checkpoint", str(_short(file))) for file in _checkpoints(trainer)]
        rows.append(("talk to it", f"python -m dllm_lightning.generate ckpt={folder}"))
        grid = Table.grid(padding=(0, 2))
        grid.add_column()
        grid.add_column(overflow="fold")  # a path is of use only when it is whole
        for name, value in rows:
            grid.add_row(f"[dim]{name}[/]", value)
        stopped = any(isinstance(callback, Ending) and callback.stopped for callback in trainer.checkpoint_callbacks)
        Console().print(Panel(grid, title="stopped" if stopped else "done", title_align="left", expand=False))


def _checkpoints(trainer: L.Trainer) -> list[Path]:
    saving = (each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint))
    found = {file for each in saving if each.dirpath for file in Path(each.dirpath).glob("*.ckpt")}
    return sorted(file for file in found if file.name != PREVIOUS)


def _short(path: Path) -> Path:
    """The path as one would type it from here."""
    relative = Path(os.path.relpath(path))
    return path if relative.parts[:1] == ("..",) else relative
