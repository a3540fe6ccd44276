"""What all sides train on: real chats where DLLM_DATA names them, else random ids in documents of the same lengths."""

from __future__ import annotations

import os
from pathlib import Path

CHATS = ("gsm8k", "oasst", "tulu3_sample", "flan_cot")
TOKENIZER = "modernbert-base"


def source() -> str:
    """What there is to train on, in words."""
    if root := os.environ.get("DLLM_DATA"):
        return f"{' + '.join(CHATS)} under {root}"
    return "synthetic: random ids in documents of the lengths of real chats (DLLM_DATA=FOLDER names real ones)"


def overrides(cache_dir: Path) -> list[str]:
    """The data's part of the configuration."""
    if root := os.environ.get("DLLM_DATA"):
        folders = ",".join(f"'{Path(root).resolve()}/chat/{chat}'" for chat in CHATS)
        tokenizer = Path(root).resolve() / "tokenizers" / TOKENIZER
        return [f"data.path=[{folders}]", f"data.tokenizer='{tokenizer}'", f"data.cache_dir='{cache_dir}'"]
    return ["data._target_=synthetic.Synthetic", "data.tokenizer=none"]
