"""python -m dllm_lightning.train: fit a model to a configuration, and say where everything is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dllm_lightning.launch import launch

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(cfg: DictConfig) -> float | None:
    """Trains; returns the last `val/nelbo`, which a sweep may minimise."""
    import contextlib
    import logging
    import sys
    import warnings
    from pathlib import Path

    import torch

    from dllm_lightning.assemble import assemble
    from dllm_lightning.callbacks import Ending
    from dllm_lightning.result import RESULT, read_result
    from dllm_lightning.resume import check_resumable, to_resume

    known = (
        ".*number of training batches .* is smaller than the logging interval",
        ".*does not have many workers",
        ".*It is recommended to use `self.log",
        ".*`isinstance\\(treespec, LeafSpec\\)`",
        ".*'pin_memory' argument is set",
        ".*Checkpoint directory .* exists and is not empty",
        ".*WeightAveraging callback with a model that overrides the configure_model",
    )
    warnings.filterwarnings("ignore", message="|".join(known))
    for library in ("lightning.pytorch", "lightning.fabric"):  # what they tell of devices and limits is in the summary
        logging.getLogger(library).setLevel(logging.WARNING)
    for name in ("run", "folder"):
        if cfg[name] in (None, ""):
            raise ValueError(f"{name}={cfg[name]} is no name: give one, or leave {name} out.")
    if cfg.threads is not None:
        if type(cfg.threads) is not int or cfg.threads < 1:
            raise ValueError(f"threads={cfg.threads} is no number of threads: give a whole number, 1 or more, or null.")
        torch.set_num_threads(cfg.threads)
    folder = Path(cfg.folder)
    checkpoint = to_resume(cfg.resume, folder)
    trainer, module, data, callbacks = assemble(cfg)
    if checkpoint is not None:
        check_resumable(checkpoint, module)
        if trainer.is_global_zero:
            print(f"Going on from {checkpoint}", flush=True)
    if trainer.is_global_zero:
        (folder / RESULT).unlink(missing_ok=True)  # it speaks of the run as it was
    ending = next((callback for callback in callbacks if isinstance(callback, Ending)), None)
    with ending.listening(trainer) if ending is not None else contextlib.nullcontext():
        trainer.fit(module, data, ckpt_path=None if checkpoint is None else str(checkpoint), weights_only=True)
    stopped = ending.asked if ending is not None and ending.stopped else None
    if stopped is None and trainer.is_global_zero:  # forked processes trained, and left a note
        stopped = read_result(folder).get("signal")
    if stopped is not None:
        if trainer.is_global_zero:
            print(f"To go on, give the same command with run={cfg.run}")
        sys.exit(128 + stopped)
    if "val/nelbo" not in trainer.callback_metrics:  # a run that was done already, or does not validate
        trainer.validate(module, data, verbose=False)
    nelbo = trainer.callback_metrics.get("val/nelbo")
    return None if nelbo is None else float(nelbo)


if __name__ == "__main__":
    launch(main, config_name="train")
