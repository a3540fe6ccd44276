"""What a job of a sweep asks of SLURM, told from its trainer: `${slurm_tasks:...}` and `${slurm_gpus:...}`."""

from __future__ import annotations

from omegaconf import OmegaConf


def slurm_tasks(devices: object) -> int:
    """Processes on each node: one per device."""
    if isinstance(devices, int) and not isinstance(devices, bool) and devices > 0:
        return devices
    raise ValueError(f"SLURM has to be told how many devices a job needs: give trainer.devices=8, say, not {devices}.")


def slurm_gpus(devices: object, accelerator: str) -> int | None:
    """GPUs on each node; None asks for none."""
    return None if accelerator == "cpu" else slurm_tasks(devices)


for resolver in (slurm_tasks, slurm_gpus):
    OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)
