"""Finding and reading checkpoints. Nothing in one is ever executed: they load with `weights_only=True`, and of what
their recipe names only classes of this package are built.
"""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

PACKAGE = __name__.partition(".")[0]


class NoModel(ValueError):
    """There is no model where one was looked for."""


def checkpoint_in(path: Path, called: str = "ckpt") -> Path:
    """A checkpoint file itself, or a run folder's best one, or else its last. Raises NoModel when there is none."""
    if path.is_file():
        return path
    if not path.exists():
        others = ", the folder of a run, or a Hugging Face folder" if called == "ckpt" else " or the folder of a run"
        raise NoModel(f"There is nothing at {called}={str(path)!r}: give a checkpoint{others}.")
    for name in ("best.ckpt", "last.ckpt"):
        for folder in (path / "checkpoints", path):
            if (folder / name).is_file():
                return folder / name
    published = " and no config.json" if called == "ckpt" else ""
    raise NoModel(
        f"The folder {called}={str(path)!r} holds no checkpoint (checkpoints/best.ckpt or last.ckpt){published}."
    )


def read_checkpoint(file: Path) -> dict[str, Any]:
    """A checkpoint of ours, on the CPU. Raises NoModel for anything else, and runs nothing that it may contain."""
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise NoModel(f"{str(file)!r} is no readable checkpoint ({_why(file, error)}). Choose another.") from error
    if not isinstance(checkpoint, dict) or "recipe" not in checkpoint or "state_dict" not in checkpoint:
        raise NoModel(f"{str(file)!r} carries no recipe, so it was not written by a run of this project.")
    recipe = checkpoint["recipe"] if isinstance(checkpoint["recipe"], Mapping) else {}
    parts = checkpoint["state_dict"], *(recipe.get(part) for part in ("config", "backbone", "tokenizer"))
    if not all(isinstance(part, Mapping) for part in parts):
        raise NoModel(f"The recipe in {str(file)!r} is not whole, so no model can be built by it. Choose another.")
    return checkpoint


def read_whole(file: Path) -> dict[str, Any]:
    """Like read_checkpoint, and NoModel too where any byte has changed since it was written."""
    checkpoint = read_checkpoint(file)
    with zipfile.ZipFile(file) as archive:
        if (broken := archive.testzip()) is not None:
            raise NoModel(f"{str(file)!r} is damaged ({broken} does not match its checksum). Choose another.")
    return checkpoint


def _why(file: Path, error: Exception) -> str:
    if not zipfile.is_zipfile(file):
        return "it is not a whole file of torch.save"
    if "weights_only" in str(error) or "Weights only" in str(error):
        return "it holds more than numbers and text, which may run code as it is read, so it is not opened"
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def check_recipe(parts: Sequence[Mapping[str, Any]], files: Mapping[str, str]) -> None:
    """Raises NoModel for parts of a model or files of its tokenizer that no run of this project writes."""
    for target in _targets(parts):
        if not _is_ours(target):
            raise NoModel(f"The checkpoint asks for {target!r}, which is no part of {PACKAGE}: it will not be built.")
    for name in files:
        if Path(name).name != name:
            raise NoModel(f"The checkpoint has a tokenizer file {name!r}, which lies outside its folder.")


def _targets(config: Any) -> Iterator[str]:
    """Everything that Hydra would build."""
    if isinstance(config, Mapping):
        yield from (str(config[key]) for key in config if key == "_target_")
        config = list(config.values())
    if isinstance(config, Sequence) and not isinstance(config, str):
        for each in config:
            yield from _targets(each)


def _is_ours(target: str) -> bool:
    """Whether this is the name of a class that this package defines, and not of something that it merely imports."""
    module, _, name = target.rpartition(".")
    if module.partition(".")[0] != PACKAGE:
        return False
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return False
    return isinstance(found, type) and found.__module__.partition(".")[0] == PACKAGE
