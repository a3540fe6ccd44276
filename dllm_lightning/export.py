"""python -m dllm_lightning.export: a trained model as a folder that plain transformers loads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dllm_lightning.launch import launch
from dllm_lightning.options import check_choices, check_flags

if TYPE_CHECKING:
    from omegaconf import DictConfig

VERBATIM = ("run", "out")


def main(cfg: DictConfig, run: str | None = None, out: str | None = None) -> None:
    """Writes the folder, and pushes it to the hub if it is to go there."""
    run, out = run or cfg.run, out or cfg.out
    check(cfg, run, out)

    from pathlib import Path

    from dllm_lightning.publish import Origin, check_hub, folder_for, publish, push

    if cfg.hub is not None:
        check_hub(cfg.hub)
    place = Path(out).expanduser().resolve()
    with folder_for(place, cfg.overwrite) as folder:
        from dllm_lightning.checkpoints import checkpoint_in, read_whole
        from dllm_lightning.loading import from_checkpoint

        file = checkpoint_in(Path(run).expanduser(), called="run")
        checkpoint = read_whole(file)
        raw = cfg.weights == "raw"
        loaded, origin = from_checkpoint(checkpoint, file, raw=raw), Origin.of(checkpoint, raw)
        publish(loaded, origin, folder, title=place.name, name=cfg.hub or ".")
    print(f"{file} is in {place}")
    print(f"Talk to it: python -m dllm_lightning.generate ckpt={out}")
    if cfg.hub is not None:
        print(f"Pushed to {push(place, cfg.hub, cfg.private)}")


def check(cfg: DictConfig, run: str | None, out: str | None) -> None:
    """Raises ValueError for an option without sense, before anything is read."""
    if not run:
        raise ValueError("Nothing to export: give run=PATH, the folder of a run or a checkpoint.")
    if not out:
        raise ValueError("Nowhere to export to: give out=FOLDER, a new one.")
    check_choices(cfg, weights=("ema", "raw"))
    check_flags(cfg, "private", "overwrite")
    if cfg.hub is not None and not isinstance(cfg.hub, str):
        raise ValueError(f"hub={cfg.hub} is no name of a repository: give hub=user/name.")


if __name__ == "__main__":
    launch(main, config_name="export", verbatim=VERBATIM)
