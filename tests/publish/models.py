"""Small models for tests of publishing: runs of a few steps, and folders that another framework wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dllm_lightning.assemble import assemble
from dllm_lightning.data.toy import toy_tokenizer
from tests.conf.configurations import TINY, TINY_TOY, composed

FILES = {
    "README.md",
    "chat_template.jinja",
    "config.json",
    "dllm_lightning.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}
"""What an exported folder holds."""

TIMED = FILES | {"time_embedding.safetensors"}
"""And what that of a Duo holds."""

MODERN = ("backbone.config.initializer_range=0.5",)  # so that the words of an answer differ
BERT = (
    "backbone=masked_lm",
    "backbone.pretrained=null",
    "+backbone.config={model_type:bert,hidden_size:16,num_hidden_layers:1,num_attention_heads:2,intermediate_size:16,initializer_range:2.0}",
)

DUO = ("model=duo", "loss=ce", "sampler.steps=4", *MODERN)
HIDDEN = ("noise.max_ratio=0.9", "process/hiding=floor_count")  # so that a recipe is more than its defaults

CHAT = (
    "{% for m in messages %}"
    "{% if m['role'] == 'system' %}[SYS]\n{{ m['content'] | trim }}\n[/SYS]\n\n"
    "{% elif m['role'] == 'user' %}[Question]\n{{ m['content'] | trim }}\n[/Question]\n\n"
    "{% else %}[Answer]\n{{ m['content'] | trim }}\nEND\n\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}[Answer]\n{% endif %}"
)
ADDED = ("[SYS]", "[/SYS]", "[Question]", "[/Question]", "[Answer]", "[/Answer]", "<|im_end|>")


def train(folder: Path, *overrides: str) -> Path:
    """The folder of a run of six steps on the toy chat."""
    steps = "trainer.max_steps=6", "trainer.val_check_interval=3", "callbacks.progress=null", "optimizer.lr=1e-2"
    network = [each for each in TINY if not (each.startswith("backbone") and overrides[: len(BERT)] == BERT)]
    process = () if "model=duo" in overrides else HIDDEN
    cfg = composed(*network, *TINY_TOY, *steps, *process, *overrides).copy()
    cfg.folder = str(folder)
    run = assemble(cfg)
    run.trainer.fit(run.module, run.data)
    return folder


def save_network(folder: Path, width: int, **config: Any) -> None:
    """Random weights of a small ModernBERT, or of another type."""
    import torch
    from transformers import AutoConfig, AutoModelForMaskedLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    special = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)
    made = AutoConfig.for_model(**({"model_type": "modernbert"} | sizes | special | config), vocab_size=width)
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_config(made).save_pretrained(folder)


def save_foreign(folder: Path, end: str = "[SEP]", chat_template: str | None = CHAT) -> Path:
    """A chat model as another framework writes it: added tokens, a chat template of its own, nothing of ours."""
    tokenizer = toy_tokenizer()
    tokenizer.add_tokens(list(ADDED), special_tokens=True)
    tokenizer.chat_template = chat_template and chat_template.replace("END", end)
    tokenizer.save_pretrained(folder)
    save_network(folder, len(tokenizer) + 3, initializer_range=0.5)
    return folder


def change(file: Path, **values: Any) -> None:
    """Sets values of a JSON object in a file; those that are None are taken out."""
    found: Mapping[str, Any] = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in (found | values).items() if value is not None}))
