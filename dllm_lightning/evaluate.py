"""python -m dllm_lightning.evaluate: what a trained model is worth, every number with its error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from dllm_lightning.chosen import chosen, for_hydra
from dllm_lightning.launch import launch

if TYPE_CHECKING:
    from dllm_lightning.evaluation import Answered, Section, Subject
    from dllm_lightning.harness import Tasks

ONE_OF = {
    "split": ("train", "validation", "test"),
    "estimator": ("auto", "count", "time"),
    "precision": ("float32", "bfloat16"),
    "format": ("auto", "rich", "json"),
}
LEAST = {"batch_size": 1, "draws": 1, "limit": 1, "length": 1, "threads": 1, "seed": 0, "shots": 0}
OPEN = ("limit", "length", "threads")  # null says something there


def main(cfg: DictConfig) -> None:
    """Measures what is asked for, prints it, and writes it down once all of it is there."""
    check(cfg)

    import json
    import time

    import torch

    from dllm_lightning.evaluation import as_lines, metrics, show
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


def subject_of(cfg: DictConfig) -> Subject:
    """Who is evaluated, and under which conditions."""
    from hydra.utils import instantiate

    from dllm_lightning.device import place
    from dllm_lightning.evaluation import Subject
    from dllm_lightning.loading import load

    device = place(cfg.device)
    loaded = load(cfg.ckpt, device)
    sampler = chosen(cfg.get("sampler"), loaded.sampler)
    length = cfg.length or (loaded.config.get("data") or {}).get("answer_length") or 64
    denoiser = loaded.denoiser(instantiate(cfg.cache))
    return Subject(loaded, denoiser, sampler, length, cfg.batch_size, cfg.seed, device, cfg.precision)


def measured(cfg: DictConfig, subject: Subject) -> tuple[list[Section], list[Answered]]:
    """All that is asked for. What may be missing or wrong is looked at before anything takes long."""
    from dllm_lightning import evaluation as e

    by = e.estimator_of(cfg.estimator, subject.denoiser.process)
    judge = None if cfg.judge is None else e.load_judge(cfg.judge, subject.device)
    choices = None if cfg.choices is None else e.read_choices(cfg.choices, cfg.limit)
    tasks = None if cfg.tasks is None else tasks_of(cfg.tasks, cfg.shots)
    data = e.data_of(subject, cfg.get("data"), cfg.split) if cfg.nelbo or cfg.answers else None
    documents = data.documents(cfg.split) if data is not None and cfg.nelbo else None
    exercises = e.exercises(subject, data, cfg.split, cfg.limit) if data is not None and cfg.answers else None

    found: list[Section] = []
    answered: list[Answered] = []
    if documents is not None:
        found.append(e.bound_of(subject, documents, by, cfg.draws, cfg.limit, e.progress))
    if exercises is not None:
        answered, cost = e.answer(subject, exercises, e.progress)
        found += [e.outcome(subject, answered, cost), e.variety(answered, subject.loaded.template)]
        if judge is not None:
            found.append(e.judged(subject, judge, answered, cost))
    if choices is not None:
        found.append(e.scored(subject, choices, by, cfg.draws, e.progress))
    if tasks is not None:
        found.append(tasks(subject, by, cfg.draws, cfg.limit))
    return found, answered


def tasks_of(names: str | Sequence[str], shots: int) -> Tasks:
    """Tasks of lm-evaluation-harness. Raises NoHarness where it is not installed."""
    from dllm_lightning.harness import load_tasks

    return load_tasks([names] if isinstance(names, str) else list(names), shots)


def check(cfg: DictConfig) -> None:
    """Raises ValueError for an option without sense, before anything is loaded."""
    if not cfg.ckpt:
        raise ValueError("Nothing to evaluate: give ckpt=PATH, a checkpoint, a run's folder, or a Hugging Face folder.")
    for name, allowed in ONE_OF.items():
        if cfg[name] not in allowed:
            raise ValueError(f"{name}={cfg[name]} is unknown: choose one of {', '.join(allowed)}.")
    for name in ("nelbo", "answers"):
        if not isinstance(cfg[name], bool):
            raise ValueError(f"{name}={cfg[name]} is neither true nor false.")
    for name, least in LEAST.items():
        if not (type(cfg[name]) is int and cfg[name] >= least) and not (name in OPEN and cfg[name] is None):
            raise ValueError(f"{name}={cfg[name]} is no number of things: give a whole number, {least} or more.")
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
