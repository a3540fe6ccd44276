"""What is asked: one prompt, a file of them, or lines from a pipe, as conversations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dllm_lightning.data.messages import Message, validate_prompt

Conversation = list[Message]


class BadPrompt(ValueError):
    """Something that cannot be answered."""


def one(prompt: str) -> Conversation:
    """A user's first words. Raises BadPrompt if there are none."""
    return _checked([{"role": "user", "content": prompt}], f"prompt={prompt!r}")


def from_lines(lines: Iterable[str], source: str) -> Iterator[Conversation]:
    """A conversation per line that is not empty."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _checked([{"role": "user", "content": line.strip()}], f"{source} line {number}")


def from_file(name: str) -> list[Conversation]:
    """The conversations of a .jsonl file (an object with `prompt` or `messages` per line), or the lines of any other.

    Raises BadPrompt, with the line, for what cannot be answered, and for a file in which nothing is asked.
    """
    file = Path(name).expanduser()
    if not file.is_file():
        raise BadPrompt(
            f"There is no file prompts={name!r}: give a text file with one prompt per line, or a .jsonl file."
        )
    source = f"prompts={name}"
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines() if file.suffix != ".jsonl" else _json_lines(file)
    except UnicodeDecodeError as error:
        raise BadPrompt(f"{source} is not UTF-8 text ({error.reason} at byte {error.start}).") from error
    found = list(_from_json(lines, source) if file.suffix == ".jsonl" else from_lines(lines, source))
    if not found:
        raise BadPrompt(f"{source} asks nothing: it has no line with a prompt.")
    return found


def _json_lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8-sig").split("\n")  # JSON strings may hold other line separators


def _from_json(lines: Iterable[str], source: str) -> Iterator[Conversation]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{source} line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadPrompt(f"{where} is not JSON ({error.msg}): {_short(line)}") from error
        if isinstance(row, dict) and isinstance(row.get("messages"), list):
            yield _checked(_unanswered(row["messages"]), where)
        elif isinstance(row, dict) and isinstance(row.get("prompt"), str):
            yield _checked([{"role": "user", "content": row["prompt"]}], where)
        else:
            raise BadPrompt(f'{where} has neither a "prompt" nor "messages": {_short(line)}')


def _unanswered(messages: list[Any]) -> list[Any]:
    """A training row asks its last question: the answer that it brings is left out."""
    answered = len(messages) > 1 and isinstance(messages[-1], dict) and messages[-1].get("role") == "assistant"
    return messages[:-1] if answered else messages


def _checked(messages: list[Any], where: str) -> Conversation:
    if (reason := validate_prompt(messages)) is not None:
        raise BadPrompt(f"{where} cannot be answered: {reason}.")
    return messages


def _short(line: str) -> str:
    return line if len(line) <= 80 else f"{line[:80]} ..."
