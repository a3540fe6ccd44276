"""Which parts go together, decided once, before any weight is loaded."""

from __future__ import annotations

import inspect
import os
from typing import Any

import torch

from dllm_lightning.callbacks import TemperatureAnnealing
from dllm_lightning.loss import Loss
from dllm_lightning.model import DiffusionModule, Duo, DuoDistill
from dllm_lightning.process import Process
from dllm_lightning.sampler import Sampler


class IncompatibleParts(ValueError):
    """Two parts of a configuration that make no sense together."""


def check_compatible(model: Any, process: Process, loss: Loss, sampler: Sampler) -> None:
    """Raises IncompatibleParts, naming both parts and the way out, unless every part accepts the process."""
    if not isinstance(loss, model.objective):
        kind = type(loss).__name__
        raise IncompatibleParts(
            f"{kind} needs a teacher, and {model.__name__} has none: use model=duo_distill, or leave the loss alone."
            if model.objective is Loss
            else f"{model.__name__} learns from a teacher, and {kind} knows of none: leave the loss alone."
        )
    parts: tuple[Any, ...] = (model, type(loss), type(sampler))
    for part in parts:
        if not isinstance(process, part.accepts):
            raise IncompatibleParts(
                f"{part.__name__} works with {_names(part.accepts)}, but the process is {type(process).__name__}. "
                f"{_way_out(part, process)}"
            )
    if (reason := loss.refuses(process)) is not None:
        raise IncompatibleParts(f"{type(loss).__name__} cannot be used: {reason}")
    if (reason := sampler.refuses(process)) is not None:
        raise IncompatibleParts(f"{type(sampler).__name__} cannot be used: {reason}")


def check_callbacks(model: type, callbacks: Any) -> None:
    """Raises IncompatibleParts for a callback that turns a knob which the model does not have."""
    for name, part in callbacks.items():
        anneals = part is not None and str(part.get("_target_", "")).endswith(f".{TemperatureAnnealing.__name__}")
        if anneals and not issubclass(model, Duo):
            raise IncompatibleParts(
                f"callbacks.{name} anneals the temperature tau of soft tokens, and {model.__name__} has none. "
                f"Use callbacks=standard, or model=duo."
            )


def check_packing(backbone: Any, packing: bool) -> None:
    """Raises IncompatibleParts for packed rows in front of a network that cannot tell their documents apart."""
    if packing and not backbone.packs:
        raise IncompatibleParts(
            f"{backbone.__name__} cannot keep packed documents apart. Use data.packing=false, or a ModernBERT backbone."
        )


LEAST = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "gradient_clip_val": 0,
    "limit_val_batches": 0,
    "log_every_n_steps": 0,
    "max_bad_steps": 1,
    "num_nodes": 1,
    "num_sanity_val_steps": -1,
}
"""The smallest values of a trainer's numbers."""


def check_length(backbone: Any, length: int) -> None:
    """Raises IncompatibleParts for documents that are longer than the network reads."""
    if backbone.longest is not None and length > backbone.longest:
        raise IncompatibleParts(
            f"data.max_length={length} is more than {backbone.longest}, the longest row that this backbone reads: "
            f"give data.max_length={backbone.longest} or less, or a ModernBERT backbone."
        )


def check_places(trainer: Any) -> None:
    """Raises IncompatibleParts for devices that are none, and for nodes that nobody has started."""
    devices = trainer.get("devices", "auto")
    number = int(devices) if isinstance(devices, str) and devices.lstrip("-").isdigit() else devices
    on_cpu = trainer.accelerator == "cpu"
    some = isinstance(number, int) and (number > 0 or (number == -1 and not on_cpu))
    if not (some or number == "auto" or (number and not isinstance(number, int | str) and not on_cpu)):
        more = "" if on_cpu else ", -1 for all of them, a list of their numbers,"
        raise IncompatibleParts(f"trainer.devices={devices} names no devices: give how many (1 or more){more} or auto.")
    if trainer.get("num_nodes", 1) > 1 and not {"MASTER_ADDR", "SLURM_NTASKS"} & os.environ.keys():
        raise IncompatibleParts(
            f"trainer.num_nodes={trainer.num_nodes} would wait for other nodes, and this process was started alone: "
            f"start it on each of them with torchrun or srun, or give trainer.num_nodes=1."
        )


def check_trainer(trainer: Any, callbacks: Any) -> None:
    """Raises IncompatibleParts for a training that would not train, or not on this machine."""
    for name, least in LEAST.items():
        if isinstance(value := trainer.get(name), int | float) and value < least:
            raise IncompatibleParts(f"trainer.{name}={value} is too small: give {least} or more.")
    for name in ("max_steps", "max_epochs"):
        if (limit := trainer.get(name)) is not None and limit < 1 and limit != -1:
            raise IncompatibleParts(f"trainer.{name}={limit} trains nothing: give 1 or more, or -1 for no such limit.")
    if isinstance(interval := trainer.get("val_check_interval"), int | float) and interval <= 0:
        raise IncompatibleParts(f"trainer.val_check_interval={interval} is no number of batches: give 1 or more.")
    check_places(trainer)
    gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    if trainer.accelerator in ("gpu", "cuda") and not gpu:
        found = "finds none here" if torch.version.cuda else "was built without CUDA"
        raise IncompatibleParts(
            f"trainer.accelerator={trainer.accelerator} needs a GPU, and torch {torch.__version__} {found}. "
            f"Use trainer=cpu or trainer=ddp_cpu."
        )
    if is_sharded(trainer) and callbacks.get("ema") is not None:  # Lightning copies the module to keep an average of it
        raise IncompatibleParts(
            "callbacks=ema copies the model, and trainer=fsdp shards it: use callbacks=standard, or trainer=ddp."
        )


def check_copied(model: type, trainer: Any) -> None:
    """Raises IncompatibleParts for a model that copies its network, where none of the devices has all of it."""
    if issubclass(model, DuoDistill) and is_sharded(trainer):
        raise IncompatibleParts(
            "model=duo_distill copies the network to have a teacher, and trainer=fsdp shards it: use trainer=ddp."
        )


def is_sharded(trainer: Any) -> bool:
    return "ModelParallel" in str(trainer.strategy)


def _names(kinds: tuple[type, ...]) -> str:
    return " or ".join(kind.__name__ for kind in kinds)


def _way_out(part: Any, process: Process) -> str:
    kinds: dict[type, str] = {Loss: "Losses", Sampler: "Samplers", DiffusionModule: "Models"}
    family = next(base for base in kinds if issubclass(part, base))
    fits = sorted(k.__name__ for k in _leaves(family) if issubclass(type(process), k.accepts))
    leave = " Or leave the process to the model." if family is DiffusionModule else ""
    return f"{kinds[family]} that do: {', '.join(fits)}.{leave}"


def _leaves(family: Any) -> list[Any]:
    """The concrete classes below an abstract one."""
    below = [kind for child in family.__subclasses__() for kind in (child, *_leaves(child))]
    return [kind for kind in below if not inspect.isabstract(kind)]
