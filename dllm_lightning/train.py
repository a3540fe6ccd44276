"""python -m dllm_lightning.train: fit a model to a configuration, and say where everything is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dllm_lightning.launch import launch

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(cfg: DictConfig) -> float | None:
    """Trains; returns the last `val/nelbo`, which a sweep may minimise."""
    import logging
    import warnings
    from pathlib import Path

    from dllm_lightning.assemble import assemble
    from dllm_lightning.callbacks import Summary
    from dllm_lightning.checkpoints import to_resume

    warnings.filterwarnings("ignore", message=".*does not have many workers.*|.*`isinstance\\(treespec, LeafSpec\\)`.*")
    logging.getLogger("lightning").setLevel(logging.WARNING)  # its news of devices and limits is in the summary
    checkpoint = to_resume(cfg.resume, Path(cfg.folder))
    trainer, module, data, callbacks = assemble(cfg)
    if checkpoint is not None:
        print(f"Going on from {checkpoint}")
    trainer.fit(module, data, ckpt_path=None if checkpoint is None else str(checkpoint), weights_only=True)
    if trainer.interrupted:
        return None
    if module.validated_at != trainer.global_step:
        trainer.validate(module, data, verbose=False)
    for callback in callbacks:
        if isinstance(callback, Summary):
            callback.report(trainer)
    nelbo = trainer.callback_metrics.get("val/nelbo")
    return None if nelbo is None else float(nelbo)


if __name__ == "__main__":
    launch(main, config_name="train")
