"""The composition root: a configuration becomes objects, each built once, in reading order.

Hydra instantiates the leaves; everything that one part needs of another is handed over here, as an object. `load` is the way
back: from a checkpoint's recipe, or a Hugging Face folder, to a model that talks.
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
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from dllm_lightning.backbone import Backbone
from dllm_lightning.checkpoints import NoModel, checkpoint_in, read_checkpoint
from dllm_lightning.compatibility import check_compatible, check_strategy
from dllm_lightning.data.template import ChatTemplate
from dllm_lightning.model import DiffusionModule
from dllm_lightning.model.denoiser import NetworkDenoiser
from dllm_lightning.noise import LogLinear
from dllm_lightning.process import MaskedDiffusion, Process
from dllm_lightning.sampler import Confidence, Sampler
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
    """Builds a run. Whatever does not go together is refused before any weight is loaded."""
    data = instantiate(_with_tokenizer(cfg))
    tokenizer = data.tokenizer
    schedule = instantiate(cfg.noise)
    process = instantiate(cfg.process)(Vocab.of(tokenizer), schedule)
    loss = instantiate(cfg.loss)
    sampler = instantiate(cfg.sampler)
    model = instantiate(cfg.model)
    optimizer = instantiate(cfg.optimizer)
    check_compatible(model.func, process, loss, sampler)
    check_strategy(cfg.trainer, cfg.callbacks)

    L.seed_everything(cfg.seed, workers=True, verbose=False)
    backbone = instantiate(sized(cfg.backbone, tokenizer))
    process = dataclasses.replace(process, vocab=Vocab.of(tokenizer, backbone.width))
    module = model(process, backbone, loss, optimizer, seed=cfg.seed, recipe=recipe(cfg, backbone, tokenizer))
    callbacks = [_built(part, sampler=sampler, data=data) for part in cfg.callbacks.values() if part is not None]
    logger = instantiate(cfg.logger) if cfg.get("logger") else False
    precision = _precision(cfg.trainer)
    trainer = instantiate(cfg.trainer, precision=precision)(callbacks=callbacks, logger=logger)
    return Run(trainer, module, data, callbacks)


def load(path: str | Path, device: torch.device | str = "cpu") -> Loaded:
    """A model from a checkpoint, a run's folder (its best checkpoint) or a Hugging Face folder of a masked language model.

    Raises NoModel when there is none.
    """
    path = Path(path).expanduser()
    if (path / "config.json").is_file():
        return _published(path, device)
    checkpoint = read_checkpoint(checkpoint_in(path))
    made = checkpoint["recipe"]
    cfg = OmegaConf.create(made["config"])
    template = instantiate(cfg.data.template)(_tokenizer(made["tokenizer"]))
    with open_dict(cfg):
        cfg.backbone.update(pretrained=None, config=made["backbone"], gradient_checkpointing=False, compile=False)
    backbone = instantiate(cfg.backbone)
    weights = {k.removeprefix("backbone."): v for k, v in checkpoint["state_dict"].items() if k.startswith("backbone.")}
    backbone.load_state_dict(weights)
    vocab = Vocab.of(template.tokenizer, backbone.width)
    process = instantiate(cfg.process)(vocab, instantiate(cfg.noise))
    return Loaded(process, backbone.to(device).eval(), template, instantiate(cfg.sampler), cfg)


def recipe(cfg: DictConfig, backbone: Backbone, tokenizer: Any) -> dict[str, Any]:
    """What a checkpoint carries besides weights, as plain values: the configuration, the network's sizes, the tokenizer's files."""
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


def _with_tokenizer(cfg: DictConfig) -> DictConfig:
    """The data's configuration; a tokenizer that was left open is the published network's own."""
    if cfg.data.get("tokenizer", "") is not None:
        return cfg.data
    data = cfg.data.copy()
    data.tokenizer = cfg.backbone.pretrained or "answerdotai/ModernBERT-base"
    return data


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
        return AutoTokenizer.from_pretrained(folder)


def _published(folder: Path, device: torch.device | str) -> Loaded:
    """A Hugging Face folder: taken as a plain masked diffusion, with the chat template it brings, or ours if it brings none."""
    from transformers import AutoTokenizer

    from dllm_lightning.backbone import MaskedLM, ModernBert
    from dllm_lightning.data.native import Native
    from dllm_lightning.data.turns import Turns

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise NoModel(f"The folder {str(folder)!r} holds a network but no tokenizer; put its tokenizer.json there.") from error
    kind = ModernBert if '"modernbert"' in (folder / "config.json").read_text(encoding="utf-8") else MaskedLM
    backbone = kind(pretrained=str(folder))
    template = (Native if tokenizer.chat_template else Turns)(tokenizer)
    process = MaskedDiffusion(Vocab.of(tokenizer, backbone.width), LogLinear())
    return Loaded(process, backbone.to(device).eval(), template, Confidence(), OmegaConf.create())
