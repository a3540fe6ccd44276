"""Going on with a run: from which checkpoint, and whether it is still the same run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dllm_lightning.checkpoints import NoModel, read_checkpoint, read_whole
from dllm_lightning.saving import LAST, PREVIOUS, sweep_up

FREE = (
    "sampler",
    "model.validation_draws",
    "backbone.attention",
    "backbone.gradient_checkpointing",
    "backbone.compile",
    "backbone.chunk",
    "data.batch_size",
    "data.eval_batch_size",
    "data.num_workers",
    "data.num_proc",
    "data.pin_memory",
    "data.cache_dir",
    "data.on_bad_row",
)
"""What may be another when a run goes on. The trainer, the loggers and the callbacks are in no recipe, and may too."""


class Changed(ValueError):
    """A run cannot go on, because it would be another one."""


def to_resume(resume: str | None, folder: Path) -> Path | None:
    """The checkpoint that a run goes on from: the newest in its folder that is whole, or the one that is named.

    Raises NoModel for a named one that is not there or is damaged, and when all that are there are damaged.
    """
    checkpoints = folder / "checkpoints"
    sweep_up(checkpoints)
    if resume is None:
        return None
    if resume != "auto":
        if not isinstance(resume, str) or not Path(resume).is_file():
            raise NoModel(f"There is no checkpoint at resume={resume!r}: give a file, auto, or null.")
        read_whole(Path(resume))
        return Path(resume)
    damaged: dict[Path, str] = {}
    for file in (checkpoints / name for name in (LAST, PREVIOUS) if (checkpoints / name).is_file()):
        try:
            read_whole(file)
        except NoModel as error:
            damaged[file] = str(error)
            continue
        for each, reason in damaged.items():
            print(f"{reason} Taking the one before.", flush=True)
            with contextlib.suppress(FileNotFoundError):  # another rank was faster
                each.replace(each.with_suffix(".damaged"))  # else it would be the next one before
        return file
    if damaged:
        reason = next(iter(damaged.values()))
        raise NoModel(f"{reason} No other checkpoint is whole, so this run cannot go on: resume=null starts anew.")
    return None


def check_resumable(file: Path, module: Any) -> None:
    """Raises Changed, with both values, when the checkpoint is of a run that this one does not continue."""
    saved = read_checkpoint(file)
    there, here = saved["recipe"], module.recipe
    found = list(differences(there["config"], here["config"]))
    if not found and there["tokenizer"].get("tokenizer.json") != here["tokenizer"].get("tokenizer.json"):
        sizes = [recipe["backbone"].get("vocab_size") for recipe in (there, here)]
        found = [f"another tokenizer (a vocabulary of {sizes[0]}, now {sizes[1]})"]
    if not found:
        state = module.state_dict()
        there, here = ({name: list(w.shape) for name, w in each.items()} for each in (saved["state_dict"], state))
        found = list(differences(there, here, everything=True))
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise Changed(
            f"{str(file)!r} is of a run with {', '.join(found[:3])}{more}. Go on with the old values, "
            f"or start another run=NAME; resume=null starts anew in its place."
        )


def differences(
    there: Mapping[str, Any], here: Mapping[str, Any], key: str = "", everything: bool = False
) -> Iterator[str]:
    """What matters and is not the same, as `key=old (now new)`; with `everything` also what only one of them has."""
    for name in sorted({*there, *here}, key=str):
        full = f"{key}.{name}" if key else str(name)
        if full in FREE or (not everything and not (name in there and name in here)):
            continue
        old, new = there.get(name), here.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, full, everything)
        elif old != new:
            yield f"{full}={old} (now {new})"
