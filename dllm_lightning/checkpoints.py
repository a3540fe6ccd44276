"""Finding and reading checkpoints. Nothing in one is ever executed: they load with `weights_only=True`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


class NoModel(ValueError):
    """There is no model where one was looked for."""


def checkpoint_in(path: Path) -> Path:
    """A checkpoint file itself, or a run folder's best one, or else its last. Raises NoModel when there is none."""
    if path.is_file():
        return path
    if not path.exists():
        raise NoModel(f"There is nothing at ckpt={str(path)!r}: give a checkpoint, the folder of a run, or a Hugging Face folder.")
    for name in ("best.ckpt", "last.ckpt"):
        for folder in (path / "checkpoints", path):
            if (folder / name).is_file():
                return folder / name
    raise NoModel(f"The folder ckpt={str(path)!r} holds no checkpoint (checkpoints/best.ckpt or last.ckpt) and no config.json.")


def read_checkpoint(file: Path) -> dict[str, Any]:
    """A checkpoint of ours, on the CPU. Raises NoModel for anything else, and runs nothing that it may contain."""
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise NoModel(f"{str(file)!r} is no readable checkpoint ({first}). Choose another, or train again.") from error
    if not isinstance(checkpoint, dict) or "recipe" not in checkpoint or "state_dict" not in checkpoint:
        raise NoModel(f"{str(file)!r} carries no recipe, so it was not written by a run of this project.")
    return checkpoint


def to_resume(resume: str | None, folder: Path) -> Path | None:
    """The checkpoint that a run goes on from. Raises NoModel for a named one that is not there."""
    if resume is None:
        return None
    if resume == "auto":
        last = folder / "checkpoints" / "last.ckpt"
        return last if last.is_file() else None
    if not Path(resume).is_file():
        raise NoModel(f"There is no checkpoint at resume={resume!r}: give a file, auto, or null.")
    return Path(resume)
