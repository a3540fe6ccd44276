"""The composition root: a configuration becomes objects, each built once, in reading order.

Hydra instantiates the leaves; everything that one part needs of another is handed over here, as an object. `load` is
the way back: from a checkpoint's recipe, or a Hugging Face folder, to a model that talks.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from hydra.utils import get_class, instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import LearningRateMonitor
from omegaconf import DictConfig, OmegaConf, open_dict

from dllm_lightning.backbone import Backbone
from dllm_lightning.checkpoints import NoModel, check_recipe, checkpoint_in, read_checkpoint
from dllm_lightning.compatibility import IncompatibleParts, check_compatible, check_packing, check_trainer
from dllm_lightning.data.template import ChatTemplate
from dllm_lightning.model import DiffusionModule
from dllm_lightning.model.denoiser import NetworkDenoiser
from dllm_lightning.noise import LogLinear
from dllm_lightning.process import MaskedDiffusion, Process
from dllm_lightning.sampler import Confidence, Sampler
from dllm_lightning.schema import WrongValue, check_values
from dllm_lightning.types import Vocab

RECIPE = ("model", "process", "noise", "loss", "sampler", "backbone", "data", "seed")
"""The parts of a configuration that a model is made of; trainer, loggers and folders may change."""


class Run(NamedTuple):
    """Everything a training needs."""

    trainer: L.Trainer
    module: DiffusionModule
    data: L.LightningDataModule
    callbacks: list[L.Callback]


@dataclass(frozen=True)
class Loaded:
    """A trained model, ready to talk."""

    process: Process
    backbone: Backbone
    template: ChatTemplate
    sampler: Sampler
    config: DictConfig

    @property
    def tokenizer(self) -> Any:
        return self.template.tokenizer

    def denoiser(self) -> NetworkDenoiser:
        return NetworkDenoiser(self.backbone, self.process)


def assemble(cfg: DictConfig) -> Run:
    """Builds a run. What cannot be built, or does not go together, is refused before any weight is loaded."""
    cfg = settled(cfg)
    check_values(cfg)
    check_trainer(cfg.trainer, cfg.callbacks)
    data = instantiate(cfg.data)
    tokenizer = data.tokenizer
    schedule = instantiate(cfg.noise)
    process = instantiate(cfg.process)(Vocab.of(tokenizer), schedule)
    loss = instantiate(cfg.loss)
    sampler = instantiate(cfg.sampler)
    model = instantiate(cfg.model)
    optimizer = instantiate(cfg.optimizer)
    check_compatible(model.func, process, loss, sampler)
    check_packing(get_class(cfg.backbone._target_), data.packing)
    data.check()
    callbacks = [_built(part, sampler=sampler, data=data) for part in cfg.callbacks.values() if part is not None]
    logger = instantiate(cfg.logger) if cfg.get("logger") else False
    if logger is False:  # which would have nowhere to write to
        callbacks = [callback for callback in callbacks if not isinstance(callback, LearningRateMonitor)]
    trainer = _trainer(cfg.trainer, callbacks, logger)

    L.seed_everything(cfg.seed, workers=True, verbose=False)
    backbone = instantiate(sized(cfg.backbone, tokenizer))
    process = dataclasses.replace(process, vocab=Vocab.of(tokenizer, backbone.width))
    module = model(process, backbone, loss, optimizer, seed=cfg.seed, recipe=recipe(cfg, backbone, tokenizer))
    return Run(trainer, module, data, callbacks)


def load(path: str | Path, device: torch.device | str = "cpu") -> Loaded:
    """A model from a checkpoint, a run's folder (its best one) or a Hugging Face folder of a masked language model.

    Raises NoModel when there is none.
    """
    path = Path(path).expanduser()
    if (path / "config.json").is_file():
        return _published(path, device)
    checkpoint = read_checkpoint(checkpoint_in(path))
    made = checkpoint["recipe"]
    cfg = OmegaConf.create(made["config"])
    check_recipe([cfg.noise, cfg.process, cfg.sampler, cfg.backbone, cfg.data.template], made["tokenizer"])
    template = instantiate(cfg.data.template)(_tokenizer(made["tokenizer"]))
    with open_dict(cfg):
        cfg.backbone.update(pretrained=None, config=made["backbone"], gradient_checkpointing=False, compile=False)
        cfg.backbone.attention = "sdpa"  # which speaks wherever it is loaded, in float32 too
    backbone = instantiate(cfg.backbone)
    weights = {k.removeprefix("backbone."): v for k, v in checkpoint["state_dict"].items() if k.startswith("backbone.")}
    backbone.load_state_dict(weights)
    vocab = Vocab.of(template.tokenizer, backbone.width)
    process = instantiate(cfg.process)(vocab, instantiate(cfg.noise))
    return Loaded(process, backbone.to(device).eval(), template, instantiate(cfg.sampler), cfg)


def recipe(cfg: DictConfig, backbone: Backbone, tokenizer: Any) -> dict[str, Any]:
    """What a checkpoint carries besides weights, as plain values: configuration, sizes, and the tokenizer's files."""
    config = OmegaConf.to_container(OmegaConf.masked_copy(cfg, list(RECIPE)), resolve=True)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = {file.name: file.read_text(encoding="utf-8") for file in sorted(Path(folder).iterdir())}
    return {"config": config, "backbone": backbone.recipe, "tokenizer": files}


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
    if missing := [part for part in (*RECIPE, "optimizer", "trainer") if cfg.get(part) is None]:
        raise WrongValue(f"A run needs its {missing[0]}, and none was chosen: --help lists what there is.")
    if not isinstance(cfg.seed, int) or not 0 <= cfg.seed < 2**32:
        raise WrongValue(f"seed={cfg.seed!r} starts no generator: give a whole number, from 0 to {2**32 - 1}.")
    cfg = cfg.copy()
    if cfg.data.get("tokenizer", "") is None:
        cfg.data.tokenizer = cfg.backbone.pretrained or "answerdotai/ModernBERT-base"
    cfg.trainer.precision = _precision(cfg.trainer)
    cfg.callbacks = cfg.callbacks or {}
    return cfg


def _trainer(cfg: DictConfig, callbacks: list[L.Callback], logger: Any) -> L.Trainer:
    """Lightning's trainer. Raises IncompatibleParts with Lightning's own words for what it cannot do."""
    make = instantiate(cfg)
    try:
        return make(callbacks=callbacks, logger=logger)
    except (ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException) as error:
        raise IncompatibleParts(f"The trainer cannot be built like this: {error}") from error


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


def _tokenizer(files: Mapping[str, str]) -> Any:
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def _published(folder: Path, device: torch.device | str) -> Loaded:
    """A Hugging Face folder, taken as a plain masked diffusion; its chat template, or ours if it brings none."""
    from transformers import AutoTokenizer

    from dllm_lightning.backbone import MaskedLM, ModernBert
    from dllm_lightning.data.native import Native
    from dllm_lightning.data.turns import Turns

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise NoModel(
            f"The folder {str(folder)!r} holds a network but no tokenizer; put its tokenizer.json there."
        ) from error
    kind = ModernBert if '"modernbert"' in (folder / "config.json").read_text(encoding="utf-8") else MaskedLM
    backbone = kind(pretrained=str(folder))
    template = (Native if tokenizer.chat_template else Turns)(tokenizer)
    process = MaskedDiffusion(Vocab.of(tokenizer, backbone.width), LogLinear())
    return Loaded(process, backbone.to(device).eval(), template, Confidence(), OmegaConf.create())
