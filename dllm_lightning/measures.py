"""What an evaluation measures: the parts that a configuration asks for, on one subject."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra.utils import instantiate
from omegaconf import DictConfig

from dllm_lightning import evaluation as e
from dllm_lightning.chosen import chosen
from dllm_lightning.device import place
from dllm_lightning.loading import load

if TYPE_CHECKING:
    from dllm_lightning.harness import Tasks


def subject_of(cfg: DictConfig) -> e.Subject:
    """Who is evaluated, and under which conditions."""
    device = place(cfg.device)
    loaded = load(cfg.ckpt, device)
    sampler = chosen(cfg.get("sampler"), loaded.sampler)
    length = cfg.length or (loaded.config.get("data") or {}).get("answer_length") or 64
    denoiser = loaded.denoiser(instantiate(cfg.cache), cfg.compile)
    return e.Subject(loaded, denoiser, sampler, length, cfg.batch_size, cfg.seed, device, cfg.precision)


def measured(cfg: DictConfig, subject: e.Subject) -> tuple[list[e.Section], list[e.Answered]]:
    """All that is asked for. What may be missing or wrong is looked at before anything takes long."""
    by = e.estimator_of(cfg.estimator, subject.denoiser.process)
    judge = None if cfg.judge is None else e.load_judge(cfg.judge, subject.device)
    choices = None if cfg.choices is None else e.read_choices(cfg.choices, cfg.limit)
    tasks = None if cfg.tasks is None else _tasks(cfg.tasks, cfg.shots)
    data = e.data_of(subject, cfg.get("data"), cfg.split) if cfg.nelbo or cfg.answers else None
    documents = data.documents(cfg.split) if data is not None and cfg.nelbo else None
    exercises = e.exercises(subject, data, cfg.split, cfg.limit) if data is not None and cfg.answers else None

    found: list[e.Section] = []
    answered: list[e.Answered] = []
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


def _tasks(names: str | Sequence[str], shots: int) -> Tasks:
    """Tasks of lm-evaluation-harness. Raises NoHarness where it is not installed."""
    from dllm_lightning.harness import load_tasks

    return load_tasks([names] if isinstance(names, str) else list(names), shots)
