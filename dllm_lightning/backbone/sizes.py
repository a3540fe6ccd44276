"""Which sizes a network can be made of: those that its type knows, and that fit together.

What nobody reads would otherwise pass in silence, and what does not fit end deep inside a library.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from dllm_lightning.backbone.networks import InvalidBackbone

COUNTS = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "max_position_embeddings")
"""Sizes that go by these names in most networks."""
THE_TOKENIZERS = ("vocab_size", "pad_token_id", "eos_token_id", "bos_token_id", "cls_token_id", "sep_token_id")


def check_sizes(config: Mapping[str, Any]) -> None:
    """Raises InvalidBackbone for the first of the sizes that a user gives of which no network can be made."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    kind = config.get("model_type")
    if kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        close = difflib.get_close_matches(str(kind), MODEL_FOR_MASKED_LM_MAPPING_NAMES)
        names = " or ".join(close) or "modernbert, bert, roberta or another that transformers knows"
        raise InvalidBackbone(f"backbone.config.model_type={kind!r} is no type of masked language model: give {names}.")
    usual = vars(AutoConfig.for_model(kind))
    known = {"model_type", *usual}
    for name, value in config.items():
        if name in THE_TOKENIZERS:
            raise InvalidBackbone(f"backbone.config.{name}={value!r} is for the tokenizer to say: leave it out.")
        if name in COUNTS and (type(value) is not int or value < 1):
            raise InvalidBackbone(f"backbone.config.{name}={value!r} is no size: give a whole number, 1 or more.")
        if name not in known:
            near = " or ".join(difflib.get_close_matches(name, known))
            hint = f"Did you mean {near}?" if near else f"A {kind} reads no such size."
            raise InvalidBackbone(f"There is no option 'backbone.config.{name}'. {hint}")
    width, heads = (config.get(name, usual.get(name)) for name in ("hidden_size", "num_attention_heads"))
    if isinstance(width, int) and isinstance(heads, int) and width % heads:
        raise InvalidBackbone(
            f"backbone.config.hidden_size={width} cannot be shared out among num_attention_heads={heads}: "
            f"give a multiple of {heads}."
        )
