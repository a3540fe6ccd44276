"""python -m dllm_lightning.evaluate: what a trained model is worth, every number with its error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dllm_lightning.chosen import for_hydra
from dllm_lightning.launch import launch
from dllm_lightning.options import check_choices, check_counts, check_flags, check_seed


def main(cfg: DictConfig) -> None:
    """Measures what is asked for, prints it, and writes it down once all of it is there."""
    check(cfg)

    import json
    import time

    import torch

    from dllm_lightning.evaluation import as_lines, metrics, show
    from dllm_lightning.measures import measured, subject_of
    from dllm_lightning.result import RESULT, write_result, write_whole

    began, folder = time.perf_counter(), Path(cfg.folder)
    (folder / RESULT).unlink(missing_ok=True)  # it speaks of another time
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    subject = subject_of(cfg)
    sections, answered = measured(cfg, subject)
    result: dict[str, Any] = {"status": "done", "metrics": metrics(sections)}
    result |= {"ckpt": str(cfg.ckpt), "version": cfg.version, "split": cfg.split, "typed": list(cfg.typed)}
    result |= {"how": {each.title: each.told for each in sections}}
    result |= {"seconds": round(time.perf_counter() - began, 1)}
    if answered:
        write_whole(folder / "answers.jsonl", as_lines(answered))
    write_result(folder, result)
    if cfg.format == "json":
        print(json.dumps(result, ensure_ascii=False))
    else:
        show(f"{cfg.ckpt}, {cfg.split} split", sections)
        print(f"\n{folder / RESULT}")


def check(cfg: DictConfig) -> None:
    """Raises ValueError for an option without sense, before anything is loaded."""
    if not cfg.ckpt:
        raise ValueError("Nothing to evaluate: give ckpt=PATH, a checkpoint, a run's folder, or a Hugging Face folder.")
    check_choices(cfg, split=("train", "validation", "test"), estimator=("auto", "count", "time"))
    check_choices(cfg, precision=("float32", "bfloat16"), format=("auto", "rich", "json"))
    check_flags(cfg, "nelbo", "answers", "compile")
    check_counts(cfg, "batch_size", "draws")
    check_counts(cfg, "shots", least=0)
    check_counts(cfg, "limit", "length", "threads", null=True)
    check_seed(cfg)
    if cfg.draws > 1 and cfg.draws % 2:
        raise ValueError(f"draws={cfg.draws} is odd, and draws come in pairs: give an even number, or 1.")
    if cfg.judge is not None and not cfg.answers:
        raise ValueError("judge has nothing to judge without answers: leave answers=false out.")
    if not (cfg.nelbo or cfg.answers or cfg.choices or cfg.tasks):
        raise ValueError("Nothing to measure: leave nelbo=true or answers=true, or give choices=FILE or tasks=[NAME].")
    for name in ("run", "folder"):
        if cfg[name] in (None, ""):
            raise ValueError(f"{name}={cfg[name]} is no name: give one, or leave {name} out.")


def version(ckpt: str | None) -> str:
    """Another one when a model may have changed: when the newest of its files was written."""
    place = Path(str(ckpt or "")).expanduser()
    files = [place] if place.is_file() else [*place.glob("*"), *place.glob("checkpoints/*")] if ckpt else []
    return str(max((file.stat().st_mtime_ns for file in files if file.is_file()), default=""))


OmegaConf.register_new_resolver(version.__name__, version, replace=True)


def own_data(arguments: Sequence[str]) -> list[str]:
    """`data.path=FILE` without a `data=...` is about the model's own data, which Hydra knows nothing of."""
    named = any(argument.startswith("data=") for argument in arguments)
    return [f"++{each}" if each.startswith("data.") and not named else each for each in arguments]


if __name__ == "__main__":
    sys.argv[1:] = own_data(for_hydra(sys.argv[1:]))
    launch(main, config_name="evaluate")
