"""A tokenizer by name: a folder, or an id on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dllm_lightning.data.hub import expect_no_network
from dllm_lightning.types import InvalidTokenizer


def load_tokenizer(name: str | Path) -> Any:
    """The tokenizer that data.tokenizer names, in a folder or on the hub; InvalidTokenizer when there is none."""
    folder = Path(name).expanduser()
    if not folder.is_dir() and (str(name).startswith(("/", ".", "~")) or str(name).count("/") > 1):
        raise InvalidTokenizer(f"There is no folder {str(name)!r}. data.tokenizer takes a folder or a hub id.")
    if not folder.is_dir():
        expect_no_network()
    return read_tokenizer(folder if folder.is_dir() else name, f"data.tokenizer={str(name)!r}")


def read_tokenizer(name: str | Path, called: str) -> Any:
    """A tokenizer of transformers, which messages call `called`; code that comes with one is never run.

    Raises InvalidTokenizer when there is none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # no network, no such name, no such file: many libraries, one consequence
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        if "trust_remote_code" in str(error):
            reason = "its tokenizer_config.json asks for code of its own by auto_map, and such code is never run here"
        raise InvalidTokenizer(
            f"{called} gave no tokenizer ({reason}). Without a network, give a folder that holds a tokenizer.json."
        ) from error
