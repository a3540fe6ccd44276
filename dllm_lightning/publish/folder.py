"""A model as a folder: written beside its place, and put there when it is whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dllm_lightning.backbone.time_embedding import TIME_FILE
from dllm_lightning.loading import RECIPE_FILE, Loaded
from dllm_lightning.publish.card import card
from dllm_lightning.publish.origin import Origin
from dllm_lightning.publish.tokenizer import mend, speaking


class NotFree(ValueError):
    """Something is in the place where the folder should be."""


def publish(loaded: Loaded, origin: Origin, out: Path, title: str, name: str) -> None:
    """Writes weights, sizes, tokenizer, recipe and model card into a folder; `name` is what its card loads it by.

    Where the network is told how much is noise, that part of it has a file of its own (`time_embedding.safetensors`).
    """
    from transformers.utils.logging import disable_progress_bar

    backbone: Any = loaded.backbone
    tokenizer = speaking(loaded.template)
    tokenizer.save_pretrained(out)
    mended = mend(out, loaded.template)
    disable_progress_bar()
    try:
        loaded.network.save_pretrained(out)
        if backbone.time is not None:
            backbone.time.save(out / TIME_FILE)
    except Exception as error:  # safetensors has a kind of its own for a full disk
        raise OSError(f"The weights could not be written: {str(error).partition(chr(10))[0]}.") from error
    (out / RECIPE_FILE).write_text(json.dumps(origin._asdict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "README.md").write_text(card(loaded, origin, tokenizer, mended, title, name), encoding="utf-8")
    for file in out.iterdir():  # the weights are written for their owner's eyes alone
        shutil.copymode(out / "README.md", file)


@contextlib.contextmanager
def folder_for(out: Path, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write into, which takes its place at `out` when all is written; after an error nothing is left.

    Raises NotFree where something is at `out`, unless it is an earlier export that may be replaced.
    """
    check_free(out, overwrite)
    missing = [folder for folder in out.parents if not folder.exists()]
    draft, former = (out.with_name(f".{out.name}-{what}-{os.getpid()}") for what in ("new", "old"))
    try:
        _make(draft, out)
        yield draft
        if out.exists():
            out.rename(former)
        draft.rename(out)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        if former.exists():
            former.rename(out)
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    shutil.rmtree(former, ignore_errors=True)


def _make(draft: Path, out: Path) -> None:
    try:
        draft.mkdir(parents=True)
    except OSError as error:
        raise NotFree(f"Nothing can be written at out={str(out)!r} ({error.strerror}): give another place.") from error


def check_free(out: Path, overwrite: bool) -> None:
    """Raises NotFree unless there is nothing at `out`, or an earlier export to replace."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / RECIPE_FILE).is_file():
        raise NotFree(f"out={str(out)!r} is there already and is no earlier export: give another place.")
    if not overwrite:
        raise NotFree(f"out={str(out)!r} holds an earlier export: add overwrite=true to replace it.")
