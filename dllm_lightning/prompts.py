"""What is asked: one prompt or one text with gaps, a file of them, or lines from a pipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dllm_lightning.data.asked import Asked, Question
from dllm_lightning.data.gaps import BadGap, gapped
from dllm_lightning.data.infill import Infill
from dllm_lightning.data.messages import Message, validate_prompt


class BadPrompt(ValueError):
    """Something that cannot be answered."""


def asked(prompt: str | None, fill: str | None, prompts: str | None) -> list[Asked] | None:
    """What a command line asks; None where it leaves that to whoever speaks next.

    Raises BadPrompt for what cannot be answered, and for a file beside a text.
    """
    if prompts is not None and prompt is not None:
        raise BadPrompt(f"prompt={prompt!r} and prompts={prompts!r} both ask: give one of them.")
    if prompts is not None and fill is not None:
        raise BadPrompt(
            f"fill={fill!r} and prompts={prompts!r} both ask: give one of them, or write the fills into a .jsonl file, "
            f'as in {{"prompt": "...", "fill": "..."}}.'
        )
    if prompts is not None:
        return from_file(prompts)
    if prompt is None and fill is None:
        return None
    messages = [] if prompt is None else _checked([_said(prompt)], f"prompt={prompt!r}")
    return [Question(messages) if fill is None else _infill(fill, messages, f"fill={fill!r}")]


def from_lines(lines: Iterable[str], source: str) -> Iterator[Asked]:
    """A question per line that is not empty."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield Question(_checked([_said(line.strip())], f"{source} line {number}"))


def from_file(name: str) -> list[Asked]:
    """What a file asks: a .jsonl file by objects with `prompt` or `messages`, `fill`, or both; any other by its lines.

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


def _from_json(lines: Iterable[str], source: str) -> Iterator[Asked]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{source} line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadPrompt(f"{where} is not JSON ({error.msg}): {_short(line)}") from error
        yield _of_row(row if isinstance(row, dict) else {}, where, line)


def _of_row(row: dict[str, Any], where: str, line: str) -> Asked:
    fill, talk, prompt = (row.get(name) for name in ("fill", "messages", "prompt"))
    messages: list[Message] = []
    if isinstance(talk, list):
        messages = _checked(_unanswered(talk), where)
    elif isinstance(prompt, str):
        messages = _checked([_said(prompt)], where)
    elif fill is None or talk is not None or prompt is not None:
        raise BadPrompt(f'{where} has no "prompt", no "messages" and no "fill": {_short(line)}')
    return Question(messages) if fill is None else _infill(fill, messages, where)


def _said(prompt: str) -> dict[str, str]:
    """A user's first words."""
    return {"role": "user", "content": prompt}


def _unanswered(messages: list[Any]) -> list[Any]:
    """A training row asks its last question: the answer that it brings is left out."""
    answered = len(messages) > 1 and isinstance(messages[-1], dict) and messages[-1].get("role") == "assistant"
    return messages[:-1] if answered else messages


def _checked(messages: list[Any], where: str) -> list[Message]:
    """A conversation that can be answered."""
    if (reason := validate_prompt(messages)) is not None:
        raise BadPrompt(f"{where} cannot be answered: {reason}.")
    return messages


def _infill(fill: Any, messages: list[Message], where: str) -> Infill:
    """A text that can be filled."""
    if not isinstance(fill, str):
        raise BadPrompt(f"{where} cannot be filled: {_short(repr(fill))} is not text.")
    try:
        return Infill(fill, gapped(fill), messages)
    except BadGap as error:
        raise BadPrompt(f"{where} cannot be filled: {error}.") from error


def _short(line: str) -> str:
    return line if len(line) <= 80 else f"{line[:80]} ..."
