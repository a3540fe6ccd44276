"""Folders of language models, some of which can judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dllm_lightning.data.toy import toy_tokenizer


def save_judge(folder: Path, kind: str = "gpt2", bos: bool = True, **config: Any) -> Path:
    """Random weights of a small decoder (or of something else), with the tokenizer of the toy chat."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    tokenizer = toy_tokenizer()
    if bos:
        tokenizer.bos_token = "[CLS]"
    sizes: dict[str, Any] = {
        "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32, "initializer_range": 0.5},
        "bert": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
    }[kind]
    special = {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    made = AutoConfig.for_model(kind, **sizes, **special, vocab_size=len(tokenizer), **config)
    torch.manual_seed(0)
    model = (AutoModelForCausalLM if kind == "gpt2" else AutoModelForMaskedLM).from_config(made)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
