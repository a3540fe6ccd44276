"""A folder as a repository on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9][\w-]*/[A-Za-z0-9][\w.-]*")
"""user/name, as the hub allows it."""


class CannotPush(ValueError):
    """The hub did not take it."""


def check_hub(name: str) -> None:
    """A first look, before anything is written. Raises CannotPush for what is no name, or without a token."""
    from huggingface_hub import get_token

    if NAME.fullmatch(name) is None:
        raise CannotPush(f"hub={name!r} is no name of a repository: give hub=user/name.")
    if get_token() is None:
        raise CannotPush(f"hub={name!r} needs a token: log in with `hf auth login`, or set HF_TOKEN.")


def push(folder: Path, name: str, private: bool) -> str:
    """Uploads all files of a folder as one commit, and returns the address. Raises CannotPush when the hub refuses."""
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        where = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="A model exported by dllm_lightning")
    except Exception as error:  # no network, no right, no space: many libraries, one consequence
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise CannotPush(
            f"hub={name!r} did not take the model ({reason}). It is whole in {str(folder)!r}: "
            f"try again with `hf upload {name} {folder}`."
        ) from error
    return str(where)
