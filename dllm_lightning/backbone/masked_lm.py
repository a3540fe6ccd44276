"""Any masked language model of Hugging Face behind the Backbone protocol: one document per row, padding at either end.

ModernBERT has a room of its own (`modernbert.py`), because it can also read packed rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dllm_lightning.backbone.backbone import Backbone, CannotPack

log = logging.getLogger(__name__)

_HEADS = ("lm_head", "cls", "predictions", "generator_lm_head", "vocab_projector")
"""Where Hugging Face's masked language models keep the step from states to logits, if it is one module."""


class InvalidBackbone(ValueError):
    """The network asked for does not exist, cannot be reached, or cannot serve."""


class MaskedLM(Backbone):
    """An `AutoModelForMaskedLM`: published (`pretrained`: hub id or folder) or with random weights (`config`).

    `attention` names the attention kernel; where it is missing, sdpa takes over and says so once. Weights are float32
    whatever the file holds: lower precision is the trainer's autocast, never plain AdamW on bfloat16 weights.

    Raises InvalidBackbone when nothing is at `pretrained` or it is no masked language model.
    """

    packs = False

    def __init__(
        self,
        pretrained: str | None = None,
        config: Mapping[str, Any] | None = None,
        attention: str = "sdpa",
        gradient_checkpointing: bool = False,
        compile: bool = False,
        chunk: int = 512,
    ) -> None:
        super().__init__()
        if (pretrained is None) == (config is None):
            raise InvalidBackbone(
                f"A backbone is either published or made from sizes, but backbone.pretrained={pretrained!r} and "
                f"backbone.config={dict(config) if config is not None else None}. Give exactly one of them."
            )
        if chunk < 1:
            raise InvalidBackbone(f"backbone.chunk={chunk} slots cannot be projected at a time: choose at least 1.")
        self.chunk = chunk
        self.attention = available_attention(attention)
        self.network = _published(pretrained, self.attention) if pretrained else _fresh(config or {}, self.attention)
        if gradient_checkpointing:
            self.network.gradient_checkpointing_enable({"use_reentrant": False})
        if compile:
            self.network.base_model.compile(dynamic=True)  # in place: the names in a checkpoint stay the same

    @property
    def width(self) -> int:
        return int(self.network.config.vocab_size)

    @property
    def layers(self) -> list[nn.Module]:
        base = self.network.base_model
        stack = getattr(base, "layers", None) or getattr(getattr(base, "encoder", None), "layer", [])
        return list(stack)

    @property
    def recipe(self) -> dict[str, Any]:
        """The sizes of the network as plain values: enough to build it again and load its weights."""
        return self.network.config.to_diff_dict() | {"model_type": self.network.config.model_type}

    def encode(
        self, inputs: Int[Tensor, "B L"], t: Float[Tensor, "B L"], segment: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B L D"]:
        """The states of unpacked rows. Time is not read: a masked network sees it in the number of masks."""
        if bool((segment > 1).any()):
            raise CannotPack(
                f"{type(self.network).__name__} cannot keep packed documents apart. "
                f"Use data.packing=false, or a ModernBERT backbone."
            )
        return self.network.base_model(input_ids=inputs, attention_mask=(segment > 0).long()).last_hidden_state

    @property
    def head(self) -> Callable[[Float[Tensor, "N D"]], Float[Tensor, "N K"]]:
        for name in _HEADS:
            if isinstance(module := getattr(self.network, name, None), nn.Module):
                return module
        raise InvalidBackbone(
            f"{type(self.network).__name__} keeps its vocabulary head in none of {', '.join(_HEADS)}, so logits at chosen "
            f"slots cannot be had from it. Use ModernBERT, BERT or RoBERTa."
        )

    def head_parameters(self) -> list[nn.Parameter]:
        head = self.head
        assert isinstance(head, nn.Module)
        return [p for p in head.parameters() if p.requires_grad]


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
        raise InvalidBackbone(f"backbone.attention={name!r} is no attention kernel: choose one of {', '.join(present)}.")
    if present[name]:
        return name
    if name not in _missed:
        _missed.add(name)
        log.warning("backbone.attention=%s is not available here, so sdpa takes its place.", name)
    return "sdpa"


_missed: set[str] = set()


def _fresh(config: Mapping[str, Any], attention: str) -> Any:
    from transformers import AutoConfig, AutoModelForMaskedLM

    return AutoModelForMaskedLM.from_config(AutoConfig.for_model(**config), attn_implementation=attention, dtype=torch.float32)


def _published(pretrained: str, attention: str) -> Any:
    from transformers import AutoModelForMaskedLM

    if looks_like_a_path(pretrained) and not Path(pretrained).is_dir():
        raise InvalidBackbone(f"There is no folder {pretrained!r} to load a network from (backbone.pretrained).")
    try:
        return AutoModelForMaskedLM.from_pretrained(pretrained, attn_implementation=attention, dtype=torch.float32)
    except (OSError, ValueError) as error:
        where = "folder" if Path(pretrained).is_dir() else "hub id"
        hint = (
            "It needs a config.json and weights of a masked language model."
            if where == "folder"
            else "Without network, give a local folder: backbone.pretrained=FOLDER; or start from random weights: backbone=modernbert_small."
        )
        first = str(error).strip().splitlines()[0]
        raise InvalidBackbone(f"The {where} {pretrained!r} gave no masked language model. {hint} ({first})") from error


def looks_like_a_path(name: str) -> bool:
    """Whether a user who types this means a place on disk: hub ids have one slash at most and start with a letter."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).exists()
