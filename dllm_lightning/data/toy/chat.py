"""Conversations of the toy chat: any number of them, the same for the same seed, never one question in two splits.

The split of a question follows from a hash of its normal text, wording included, whatever the size, the seed or the
level: eight tenths of all questions are for training, one for validation, one for the test. A question of the test was
never seen in training; the problem behind it may have been, in other words. With long lists it hardly ever was, with
small sums and the facts of the little world it was: nobody can work out the capital of France.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from random import Random
from typing import Literal, TypedDict, get_args

from dllm_lightning.data.toy.task import LEVELS, Task, normal
from dllm_lightning.data.toy.tasks import tasks as all_tasks

Split = Literal["train", "validation", "test"]


class Row(TypedDict):
    """A conversation; `task` is the task of its last question."""

    messages: list[dict[str, str]]
    task: str
    id: str


def split_of(question: str) -> Split:
    """The split a question belongs to, for ever."""
    tenth = int.from_bytes(blake2b(normal(question).rstrip(" .?!:").encode(), digest_size=8).digest()) % 10
    return "validation" if tenth == 0 else "test" if tenth == 1 else "train"


def generate(
    split: Split,
    size: int,
    seed: int = 0,
    tasks: Sequence[str] | None = None,
    level: int | Sequence[int] = 1,
    turns: int = 1,
    system: str | None = None,
) -> list[Row]:
    """The first `size` conversations of a split; a smaller size is a beginning of a larger one.

    `tasks` are drawn evenly (a name given twice comes twice as often), as are the levels when `level` lists several.
    A conversation has one to `turns` questions, and opens with `system` when that is given.
    """
    if split not in get_args(Split):
        raise ValueError(f"split is one of {', '.join(get_args(Split))}, but got {split!r}.")
    if size < 0 or turns < 1:
        raise ValueError(f"A chat needs size >= 0 and turns >= 1, but got size={size} and turns={turns}.")
    chosen = _chosen(tasks)
    levels = (level,) if isinstance(level, int) else tuple(level)
    if not levels or not set(levels) <= set(LEVELS):
        raise ValueError(f"level is one of {', '.join(map(str, LEVELS))}, or several of them, but got {level!r}.")
    return [_row(split, f"{split}-{seed}-{index}", chosen, levels, turns, system) for index in range(size)]


def _chosen(names: Sequence[str] | None) -> list[Task]:
    known = all_tasks()
    names = list(known) if names is None else list(names)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(f"tasks={names!r} must name at least one of: {', '.join(known)}.")
    return [known[name] for name in names]


def _row(split: Split, name: str, chosen: Sequence[Task], levels: Sequence[int], turns: int, system: str | None) -> Row:
    random = Random(name)  # each row has its own stream, so rows do not depend on how many there are
    messages = [{"role": "system", "content": system}] if system is not None else []
    for _ in range(random.randint(1, turns)):
        task, level = random.choice(chosen), random.choice(levels)
        question = next(q for q in iter(lambda: task.ask(random, level), None) if split_of(q.text) == split)  # noqa: B023
        messages += [
            {"role": "user", "content": question.text},
            {"role": "assistant", "content": question.answer},
        ]
    return {"messages": messages, "task": task.name, "id": name}
