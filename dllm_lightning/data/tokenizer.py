"""A tokenizer by name: a folder, or an id on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dllm_lightning.data.hub import expect_no_network
from dllm_lightning.types import InvalidTokenizer


def load_tokenizer(name: str | Path) -> Any:
    """The tokenizer of a folder or of the hub; InvalidTokenizer when there is none."""
    folder = Path(name).expanduser()
    if not folder.is_dir() and (str(name).startswith(("/", ".", "~")) or str(name).count("/") > 1):
        raise InvalidTokenizer(f"There is no folder {str(name)!r}. data.tokenizer takes a folder or a hub id.")
    if not folder.is_dir():
        expect_no_network()
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder if folder.is_dir() else name)
    except Exception as error:  # no network, no such name, no such file: many libraries, one consequence
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InvalidTokenizer(
            f"data.tokenizer={str(name)!r} gave no tokenizer ({reason}). Without a network, give a folder that holds a "
            f"tokenizer.json."
        ) from error
