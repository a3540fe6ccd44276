"""All tasks of the toy chat by name, and the judge that finds the task by the question alone."""

from __future__ import annotations

from functools import cache

from dllm_lightning.data.toy.facts import After, Fact, Name, Odd
from dllm_lightning.data.toy.lists import Copy, Count, Reverse, Shuffle, Sort
from dllm_lightning.data.toy.sums import Add, Between, Larger, Subtract, SumTo
from dllm_lightning.data.toy.task import Task

_TASKS = (
    Copy(), Reverse(), Sort(), Shuffle(), Count(),
    Add(), Subtract(), Larger(), Between(), SumTo(),
    Fact(), After(), Odd(), Name(),
)  # fmt: skip


@cache
def _by_name() -> dict[str, Task]:
    return {task.name: task for task in _TASKS}


def tasks() -> dict[str, Task]:
    """Every task by its name."""
    return dict(_by_name())


def task_of(question: str) -> Task:
    """The task a question belongs to."""
    for task in _TASKS:
        if task.understand(question) is not None:
            return task
    raise ValueError(f"No task of the toy chat asks {question!r}. The tasks are {', '.join(_by_name())}.")


def check(question: str, answer: str) -> bool:
    """Whether the answer to a question of the toy chat is right, judged by the two texts alone."""
    return task_of(question).check(question, answer)
