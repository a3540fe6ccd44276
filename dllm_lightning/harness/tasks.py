"""Tasks of lm-evaluation-harness, run on a subject, and what they found."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dllm_lightning.evaluation.findings import Finding, Section
from dllm_lightning.evaluation.subject import Subject
from dllm_lightning.harness.adapter import DiffusionLM
from dllm_lightning.likelihood import ByCount, Estimator


class NoTask(ValueError):
    """The harness has no such task, or cannot have its data."""


@dataclass(frozen=True)
class Tasks:
    """Tasks of the harness, whose data are here, with so many examples shown before each question."""

    manager: Any
    tasks: Sequence[Any]
    shots: int = 0

    def __call__(self, subject: Subject, by: Estimator, draws: int, limit: int | None) -> Section:
        """Runs all of them, questions as conversations."""
        from lm_eval import evaluator

        evaluator.get_git_commit_hash = lambda: None  # outside of a repository git would cry on the screen
        found = evaluator.simple_evaluate(
            model=DiffusionLM(subject, by, draws),
            tasks=[*self.tasks],
            num_fewshot=self.shots,
            limit=limit,
            task_manager=self.manager,
            apply_chat_template=True,
            fewshot_as_multiturn=True,
            bootstrap_iters=1000,
            log_samples=False,
            random_seed=subject.seed,
            fewshot_random_seed=subject.seed,
        )
        assert found is not None
        counts = {name: each["effective"] for name, each in found.get("n-samples", {}).items()}
        findings = [each for task, values in found["results"].items() for each in _findings(task, values, counts)]
        how = "count" if isinstance(by, ByCount) else "time"
        told = {
            "tasks": counts,
            "shots": self.shots,
            "draws": draws,
            "estimator": how,
            "precision": subject.precision,
            "seed": subject.seed,
        }
        caption = f"{self.shots} shots, {draws} draws by {how}, {subject.precision}, seed {subject.seed}"
        return Section("tasks", caption, findings, told)


def load_tasks(names: Sequence[str], shots: int = 0) -> Tasks:
    """Tasks by their names in the harness, or by the YAML files that describe them.

    Raises NoTask for what is neither, and where data cannot be had.
    """
    from lm_eval.tasks import TaskManager

    for name in ("lm_eval", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    files = {name: Path(name).expanduser().absolute() for name in names if name.endswith((".yaml", ".yml"))}
    for name, file in files.items():
        if not file.is_file():
            raise NoTask(f"There is no file {name!r} in tasks: give the YAML of a task, or a task's name.")
    manager = TaskManager(include_defaults=len(files) < len(names))
    for name in names:
        if name not in files and name not in manager.all_tasks:
            close = difflib.get_close_matches(name, manager.all_tasks)
            hint = f"Did you mean {' or '.join(close)}?" if close else "Give the name of one, or a YAML file."
            raise NoTask(f"lm-evaluation-harness has no task {name!r}. {hint}")
    try:
        tasks = manager.load([str(files.get(name, name)) for name in names])["tasks"]
    except Exception as error:  # whatever stands between us and its data
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise NoTask(f"tasks={', '.join(names)} cannot be loaded ({reason}).") from error
    return Tasks(manager, [*tasks.values()], shots)


def _findings(task: str, values: Mapping[str, Any], counts: Mapping[str, int]) -> Iterator[Finding]:
    """The metrics of a task: `acc,none` is its accuracy without a filter, `acc_stderr,none` the error of that."""
    for key, value in values.items():
        metric, comma, chosen = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = values.get(f"{metric}_stderr,{chosen}")
        name = f"{task}/{metric}" + ("" if chosen == "none" else f"/{chosen}")
        sure = float(error) if isinstance(error, int | float) else math.nan
        yield Finding(name, name, float(value), sure, note=f"of {counts[task]}" if task in counts else "")
