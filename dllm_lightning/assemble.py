"""The composition root: a configuration becomes objects, each built once, in reading order.

Hydra instantiates the leaves; everything that one part needs of another is handed over here, as an object. The way
back, from a checkpoint to a model that talks, is in `loading.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import shlex
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class, instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import LearningRateMonitor
from omegaconf import DictConfig, OmegaConf, open_dict

from dllm_lightning.backbone import Backbone, check_sizes
from dllm_lightning.compatibility import (
    IncompatibleParts,
    check_callbacks,
    check_compatible,
    check_copied,
    check_length,
    check_packing,
    check_trainer,
)
from dllm_lightning.mistakes import no_such_key
from dllm_lightning.model import DiffusionModule
from dllm_lightning.schema import WrongValue, check_values
from dllm_lightning.types import Vocab

RECIPE = ("model", "process", "noise", "loss", "sampler", "backbone", "data", "optimizer", "seed")
"""The parts of a configuration that a model is made of; trainer, loggers and folders may change."""

KEYS = (*RECIPE, "trainer", "callbacks", "logger", "run", "folder", "threads", "resume", "debug", "typed")
"""Everything that a configuration has."""


class Run(NamedTuple):
    """Everything a training needs."""

    trainer: L.Trainer
    module: DiffusionModule
    data: L.LightningDataModule
    callbacks: list[L.Callback]


def assemble(cfg: DictConfig) -> Run:
    """Builds a run. What cannot be built, or does not go together, is refused before any weight is loaded."""
    cfg = settled(cfg)
    check_values(cfg)
    check_trainer(cfg.trainer, cfg.callbacks)
    check_callbacks(get_class(cfg.model._target_), cfg.callbacks)
    check_copied(get_class(cfg.model._target_), cfg.trainer)
    data = instantiate(cfg.data)
    tokenizer = data.tokenizer
    schedule = instantiate(cfg.noise)
    process = instantiate(cfg.process)(Vocab.of(tokenizer, end_id=data.template.end_id), schedule)
    loss = instantiate(cfg.loss)
    sampler = instantiate(cfg.sampler)
    model = instantiate(cfg.model)
    optimizer = instantiate(cfg.optimizer)
    check_compatible(model.func, process, loss, sampler)
    check_packing(get_class(cfg.backbone._target_), data.packing)
    if cfg.backbone.config is not None:
        check_sizes(cfg.backbone.config)
    data.check()
    callbacks = [_built(part, sampler=sampler, data=data) for part in cfg.callbacks.values() if part is not None]
    logger = instantiate(cfg.logger) if cfg.get("logger") else False
    if logger is False:  # which would have nowhere to write to
        callbacks = [callback for callback in callbacks if not isinstance(callback, LearningRateMonitor)]
    trainer = _trainer(cfg.trainer, callbacks, logger)

    L.seed_everything(cfg.seed, workers=True, verbose=False)
    backbone = instantiate(sized(cfg.backbone, tokenizer))
    check_length(backbone, data.max_length)
    process = dataclasses.replace(process, vocab=Vocab.of(tokenizer, backbone.width, data.template.end_id))
    module = model(process, backbone, loss, optimizer, seed=cfg.seed, recipe=recipe(cfg, backbone, tokenizer))
    return Run(trainer, module, data, callbacks)


def recipe(cfg: DictConfig, backbone: Backbone, tokenizer: Any) -> dict[str, Any]:
    """What a checkpoint carries besides weights, as plain values: configuration, sizes, and the tokenizer's files."""
    config = OmegaConf.to_container(OmegaConf.masked_copy(cfg, list(RECIPE)), resolve=True)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = {file.name: file.read_text(encoding="utf-8") for file in sorted(Path(folder).iterdir())}
    return {"config": config, "backbone": backbone.recipe, "tokenizer": files, "command": command(cfg)}


def command(cfg: DictConfig) -> str:
    """What to type for the same run; without its options where nothing was typed, as in a notebook."""
    typed = cfg.typed if HydraConfig.initialized() or not OmegaConf.is_interpolation(cfg, "typed") else []
    return shlex.join(["python", "-m", "dllm_lightning.train", *typed])


def sized(backbone: DictConfig, tokenizer: Any) -> DictConfig:
    """The configuration of a network with random weights, as wide as the tokenizer and with its special ids."""
    if backbone.config is None:
        return backbone
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "eos", "bos", "cls", "sep")}
    width = {"vocab_size": max(len(tokenizer), max(tokenizer.get_vocab().values()) + 1)}
    with open_dict(backbone := backbone.copy()):
        backbone.config.update(width | ids)
    return backbone


def settled(cfg: DictConfig) -> DictConfig:
    """A copy in which what was left open is decided: the precision, and the tokenizer (the published network's own).

    Raises WrongValue for a part that a run cannot be without.
    """
    if unknown := [name for name in map(str, cfg) if name not in KEYS]:
        raise WrongValue(no_such_key(unknown[0], KEYS))
    if missing := [part for part in (*RECIPE, "trainer") if cfg.get(part) is None]:
        raise WrongValue(f"A run needs its {missing[0]}, and none was chosen: --help lists what there is.")
    if not isinstance(cfg.seed, int) or not 0 <= cfg.seed < 2**32:
        raise WrongValue(f"seed={cfg.seed!r} starts no generator: give a whole number, from 0 to {2**32 - 1}.")
    cfg = cfg.copy()
    if cfg.data.get("tokenizer", "") is None:
        cfg.data.tokenizer = cfg.backbone.pretrained or "answerdotai/ModernBERT-base"
    if cfg.backbone.get("time_conditioning") is None:
        model: Any = get_class(cfg.model._target_)
        cfg.backbone.time_conditioning = model.time_conditioning
    cfg.trainer.precision = _precision(cfg.trainer)
    cfg.callbacks = cfg.callbacks or {}
    return cfg


def _trainer(cfg: DictConfig, callbacks: list[L.Callback], logger: Any) -> L.Trainer:
    """Lightning's trainer. Raises IncompatibleParts with Lightning's own words for what it cannot do."""
    make = instantiate(cfg)
    try:
        return make(callbacks=callbacks, logger=logger)
    except (ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException) as error:
        raise IncompatibleParts(f"The trainer cannot be built like this: {str(error).rstrip('.')}.") from error


def _built(part: DictConfig, **objects: Any) -> Any:
    """A callback; a partial one asks for the objects."""
    built = instantiate(part)
    return built(**objects) if isinstance(built, functools.partial) else built


def _precision(trainer: DictConfig) -> str:
    """`auto`: bfloat16 arithmetic over float32 weights on a GPU that has it. On a CPU it rarely pays."""
    if trainer.precision != "auto":
        return str(trainer.precision)
    on_gpu = trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported() else "32-true"
