"""Writing checkpoints so that a file is whole or not there, whatever happens while it is written.

Two names matter: `last.ckpt` is what a run goes on from, and `previous.ckpt` the one before, for the day the last one
turns out to be damaged.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


class NotSaved(OSError):
    """A checkpoint could not be written."""


class WholeFiles(TorchCheckpointIO):
    """Writes beside the file, waits for the disk, and renames: a kill or a full disk leaves the old file as it was.

    A `last.ckpt` becomes `previous.ckpt` when a new one takes its name. Raises NotSaved, in a sentence for the user.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        written = partial(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with written.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if path.name == LAST and path.exists():
                older = partial(path.with_name(PREVIOUS))
                older.unlink(missing_ok=True)
                os.link(path, older)  # so that there is a last.ckpt at every moment
                older.replace(path.with_name(PREVIOUS))
            written.replace(path)
        except (OSError, RuntimeError) as error:  # torch's writer turns some errors of the disk into its own
            written.unlink(missing_ok=True)
            raise NotSaved(_sentence(path, error)) from error


def partial(path: Path) -> Path:
    """The file that will become `path` when it is whole."""
    return path.with_name(f".{path.name}.partial")


def sweep_up(folder: Path) -> None:
    """Removes what a killed run left half-written."""
    for leftover in folder.glob(".*.partial"):
        leftover.unlink(missing_ok=True)


def _sentence(path: Path, error: Exception) -> str:
    why = next((each.strerror for each in (error, error.__context__) if isinstance(each, OSError)), None) or str(error)
    try:
        room = f", {shutil.disk_usage(path.parent).free // 2**20} MiB free"
    except OSError:
        room = ""
    whole = sorted(file.name for file in path.parent.glob("*.ckpt"))
    kept = f"{' and '.join(whole)} are whole, so t" if whole else "T"
    return (
        f"The checkpoint {path} could not be written ({why.splitlines()[0]}{room}). "
        f"{kept}he same command with this run=NAME goes on from the last one when there is room again."
    )
