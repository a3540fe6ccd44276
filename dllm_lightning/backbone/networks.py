"""Where networks come from: sizes and random weights, a folder, or the hub; and which attention kernel they run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

log = logging.getLogger(__name__)


class InvalidBackbone(ValueError):
    """The network asked for does not exist, cannot be reached, or cannot serve."""


def available_attention(name: str) -> str:
    """The kernel that will run: `name`, or sdpa (logged once) where its package or its GPU is missing."""
    from transformers.utils import is_flash_attn_2_available, is_torch_flex_attn_available

    present = {
        "sdpa": True,
        "eager": True,
        "flex_attention": is_torch_flex_attn_available() and torch.cuda.is_available(),
        "flash_attention_2": is_flash_attn_2_available(),
    }
    if name not in present:
        raise InvalidBackbone(
            f"backbone.attention={name!r} is no attention kernel: choose one of {', '.join(present)}."
        )
    if present[name]:
        return name
    if name not in _missed:
        _missed.add(name)
        log.warning("backbone.attention=%s is not available here, so sdpa takes its place.", name)
    return "sdpa"


_missed: set[str] = set()


def fresh(config: Mapping[str, Any], attention: str) -> Any:
    """A network of these sizes with random weights. Raises InvalidBackbone where there is none."""
    from transformers import AutoConfig, AutoModelForMaskedLM

    sizes = _plain(config)
    try:
        made = AutoConfig.for_model(**sizes)
        options = {"attn_implementation": attention, "dtype": torch.float32, "trust_remote_code": False}
        return AutoModelForMaskedLM.from_config(made, **options)
    except Exception as error:  # each size has its own
        said = " ".join(str(error).split())[:240]
        said = f"there is no {said} to choose" if isinstance(error, KeyError) else said
        kind = f"model_type={sizes.get('model_type')}"
        raise InvalidBackbone(f"No network can be made of backbone.config with {kind} ({said}).") from error


def _plain(value: Any) -> Any:
    """Plain containers, whatever kind of mapping or list a configuration is made of: they end up in checkpoints."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def published(pretrained: str, attention: str) -> Any:
    """The network in a folder or on the hub. Nothing that comes with it is run: no code of its own, no pickle.

    Raises InvalidBackbone where there is none.
    """
    from transformers import AutoModelForMaskedLM
    from transformers.utils.logging import disable_progress_bar

    pretrained = str(Path(pretrained).expanduser()) if pretrained.startswith("~") else pretrained
    folder = Path(pretrained)
    if looks_like_a_path(pretrained) and not folder.is_dir():
        raise InvalidBackbone(f"There is no folder {pretrained!r} to load a network from (backbone.pretrained).")
    if (pickles := sorted(folder.glob("*.bin"))) and not any(folder.glob("*.safetensors*")):
        raise _pickle(pickles[0])
    disable_progress_bar()
    options = {"attn_implementation": attention, "dtype": torch.float32}
    try:
        network = AutoModelForMaskedLM.from_pretrained(
            pretrained, use_safetensors=True, trust_remote_code=False, **options
        )
    except Exception as error:  # each kind of file has its own
        if "trust_remote_code" in str(error):
            raise InvalidBackbone(
                f"{str(folder / 'config.json')!r} asks for code of its own (auto_map), and code that comes with a "
                f"model is never run here. Use a model of a type that transformers knows by itself."
            ) from error
        if "Weights only" in str(error):  # an index of safetensors that names other files
            raise _pickle(folder) from error
        where = "folder" if folder.is_dir() else "hub id"
        hint = (
            "It needs a config.json and weights of a masked language model."
            if where == "folder"
            else "Without network, give a local folder: backbone.pretrained=FOLDER; "
            "or start from random weights: backbone=modernbert_small."
        )
        said = f"The {where} {pretrained!r} gave no masked language model. {hint} ({_first_line(error)})"
        raise InvalidBackbone(said) from error
    return network.train()  # as one with random weights is: whoever evaluates says so


def beside(pretrained: str, name: str) -> Path | None:
    """A file that was published with a network, in its folder or on the hub; None where there is none."""
    from transformers.utils import cached_file

    quiet = {f"_raise_exceptions_for_{what}": False for what in ("missing_entries", "connection_errors", "gated_repo")}
    found = cached_file(str(Path(pretrained).expanduser()) if pretrained.startswith("~") else pretrained, name, **quiet)
    return None if found is None else Path(found)


def _pickle(file: Path) -> InvalidBackbone:
    return InvalidBackbone(
        f"{str(file)!r} holds its weights as a pickle, which may run code as it is read, so it is not opened. Where "
        f"you trust it, load it with transformers and save_pretrained it again, as safetensors."
    )


def looks_like_a_path(name: str) -> bool:
    """Whether a user who types this means a place on disk: hub ids have one slash at most and start with a letter."""
    return name.startswith((".", "/")) or name.count("/") > 1 or Path(name).exists()
