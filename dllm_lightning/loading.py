"""The way back: from a checkpoint, a run's folder or a Hugging Face folder to a model that talks.

A checkpoint carries its recipe, and so does a folder that this project has exported (`dllm_lightning.json`). Any other
folder of a masked language model is taken as a plain masked diffusion with the chat template that it brings, or ours.
Nothing in a file is executed: only classes of this package are built, only safetensors and `weights_only` files read.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from dllm_lightning.backbone import Backbone
from dllm_lightning.backbone.cache import Cache
from dllm_lightning.backbone.time_embedding import TIME_FILE
from dllm_lightning.checkpoints import NoModel, check_recipe, checkpoint_in, read_whole
from dllm_lightning.data.template import ChatTemplate
from dllm_lightning.data.tokenizer import read_tokenizer
from dllm_lightning.model.denoiser import NetworkDenoiser
from dllm_lightning.process import Process
from dllm_lightning.sampler import Sampler
from dllm_lightning.types import Vocab

RECIPE_FILE = "dllm_lightning.json"
"""The recipe in an exported folder: what its config.json and its tokenizer cannot say."""

BUILT = ("noise", "process", "sampler", "backbone", "data.template")
"""The parts of a recipe that a loaded model is built of."""

PLAIN = {
    "noise": {"_target_": "dllm_lightning.noise.LogLinear"},
    "process": {"_target_": "dllm_lightning.process.MaskedDiffusion", "_partial_": True},
    "sampler": {"_target_": "dllm_lightning.sampler.Reveal"},
}


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

    @property
    def network(self) -> Any:
        """The Hugging Face network in the backbone."""
        backbone: Any = self.backbone
        return backbone.network

    @property
    def longest(self) -> int | None:
        """The longest row that the network has positions for, where it says so."""
        return self.backbone.longest or getattr(self.network.config, "max_position_embeddings", None)

    def denoiser(self, cache: Cache | None = None, compile: bool = False) -> NetworkDenoiser:
        """What a sampler asks. Raises CannotRemember for a cache of a network that cannot have one.

        ValueError for a cache of a compiled one: each new set of columns would be compiled anew.
        """
        denoiser = NetworkDenoiser(self.backbone, self.process, cache)
        if compile and cache is not None:
            raise ValueError("compile=true and a cache do not go together: leave one of them out.")
        if compile:
            backbone: Any = self.backbone
            backbone.compile_network()
        return denoiser


def load(path: str | Path, device: torch.device | str = "cpu") -> Loaded:
    """A model from a checkpoint, a run's folder (its best one) or a Hugging Face folder of a masked language model.

    Raises NoModel when there is none.
    """
    path = Path(path).expanduser()
    if (path / "config.json").is_file():
        return from_folder(path, device)
    file = checkpoint_in(path)
    return from_checkpoint(read_whole(file), file, device)


def from_checkpoint(
    checkpoint: Mapping[str, Any], file: Path, device: torch.device | str = "cpu", raw: bool = False
) -> Loaded:
    """The model of a checkpoint that was read from `file`.

    Where an average of the weights was kept, it is the average; `raw` takes what was averaged.
    """
    config, sizes, files = (checkpoint["recipe"][part] for part in ("config", "backbone", "tokenizer"))
    cfg = _checked(config, files, file)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        tokenizer = read_tokenizer(folder, f"The checkpoint {str(file)!r}")
    loaded = _built(cfg, tokenizer, pretrained=None, config=sizes)
    state = checkpoint.get("current_model_state", checkpoint["state_dict"]) if raw else checkpoint["state_dict"]
    weights = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    try:
        loaded.backbone.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()[:160]
        raise NoModel(
            f"The weights in {str(file)!r} are not those of its recipe ({first} ...). Choose another."
        ) from error
    loaded.backbone.to(device)
    return loaded


def from_folder(folder: Path, device: torch.device | str = "cpu") -> Loaded:
    """The model of a Hugging Face folder: by the recipe in it, or as a plain masked diffusion."""
    sizes = _read(folder / "config.json")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")):
        raise NoModel(f"The folder {str(folder)!r} holds a network but no tokenizer; put its tokenizer.json there.")
    tokenizer = read_tokenizer(folder, f"The folder {str(folder)!r}")
    recipe = folder / RECIPE_FILE
    if recipe.is_file():
        cfg = _checked(_read(recipe).get("config"), {}, recipe)
    else:
        kind = "ModernBert" if sizes.get("model_type") == "modernbert" else "MaskedLM"
        template = "native.Native" if tokenizer.chat_template else "turns.Turns"
        cfg = OmegaConf.create(
            PLAIN
            | {"backbone": {"_target_": f"dllm_lightning.backbone.{kind}"}}
            | {"data": {"template": {"_target_": f"dllm_lightning.data.{template}", "_partial_": True}}}
        )
    loaded = _built(cfg, tokenizer, pretrained=str(folder), config=None)
    _check_time(loaded.backbone, folder / TIME_FILE)
    loaded.backbone.to(device)
    return loaded


def _check_time(backbone: Any, file: Path) -> None:
    """Raises NoModel for a network that is told how much is noise, but without the weights for it."""
    if backbone.time is not None and not file.is_file():
        raise NoModel(
            f"The network in {str(file.parent)!r} is told how much is noise (backbone.time_conditioning=true), but its "
            f"weights for that are missing: put {file.name} there, or export the model again."
        )


def _built(cfg: DictConfig, tokenizer: Any, **network: Any) -> Loaded:
    """The parts of a recipe as objects."""
    template = instantiate(cfg.data.template)(tokenizer)
    with open_dict(cfg):  # sdpa speaks wherever it is loaded, in float32 too
        cfg.backbone.update(network, gradient_checkpointing=False, compile=False, attention="sdpa")
    backbone = instantiate(cfg.backbone).eval()
    process = instantiate(cfg.process)(Vocab.of(tokenizer, backbone.width, template.end_id), instantiate(cfg.noise))
    return Loaded(process, backbone, template, instantiate(cfg.sampler), cfg)


def _checked(config: Any, files: Mapping[str, str], file: Path) -> DictConfig:
    """The configuration in a recipe. Raises NoModel where it names anything that no run of this project writes."""
    try:
        cfg = OmegaConf.create(config)
        parts = [OmegaConf.select(cfg, part, throw_on_missing=True) for part in BUILT]
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        raise NoModel(f"The recipe in {str(file)!r} cannot be read: {_first(error)}") from error
    if missing := [name for name, part in zip(BUILT, parts, strict=True) if not isinstance(part, DictConfig)]:
        raise NoModel(f"The recipe in {str(file)!r} says nothing of {missing[0]}, so no model can be built by it.")
    try:
        check_recipe(parts, files)
    except NoModel as refused:
        raise NoModel(f"{refused} ({file})") from refused
    return cfg


def _read(file: Path) -> dict[str, Any]:
    """A JSON object. Raises NoModel for anything else."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise NoModel(f"{str(file)!r} is not JSON ({_first(error)}).") from error
    if not isinstance(found, dict):
        raise NoModel(f"{str(file)!r} holds no JSON object, but {str(found)[:80]!r}.")
    return found


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
