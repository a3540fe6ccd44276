"""What a conversation must look like to be trained on or answered, and the short reasons why one is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

ROLES = ("system", "user", "assistant")
Message = Mapping[str, str]

_AFTER = {"user": "assistant", "assistant": "user"}
_KINDS = {
    type(None): "null",
    bool: "a truth value",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "a mapping",
}


class BadRow(ValueError):
    """A row that cannot be trained on or answered; `reason` is short and the same for all rows of its kind."""

    def __init__(self, reason: str, row: object) -> None:
        shown = begins(row, 200)
        super().__init__(f"This row cannot be used: {reason}. Rows are system (optional), user, assistant ...: {shown}")
        self.reason = reason
        self.row = row

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self.row)


class Unread(NamedTuple):
    """Stands in the place of a row that could not be read: why not, and how it begins."""

    reason: str
    start: str


def begins(row: object, letters: int) -> str:
    """The start of a row, on one line."""
    shown = repr(row.start if isinstance(row, Unread) else row)
    return shown if len(shown) <= letters else f"{shown[:letters]} ..."


def validate(messages: Any) -> str | None:
    """Why a row cannot be trained on, in a few words, or None. A row is system (optional), user, assistant ..."""
    fault = _fault(messages)
    if fault is None and not any(message["role"] == "assistant" for message in messages):
        return "no answer"
    return fault


def validate_prompt(messages: Any) -> str | None:
    """Why a conversation cannot be answered, in a few words, or None: like a row, but its last turn is the user's."""
    fault = _fault(messages)
    if fault is None and messages[-1]["role"] != "user":
        return "roles out of order"
    return fault


def _fault(messages: Any) -> str | None:
    if messages is None:
        return "no messages"
    if not isinstance(messages, list | tuple):
        return f"messages is {_kind(messages)}, not a list"
    if not messages:
        return "no messages"
    expected = ("system", "user") if _role(messages[0]) == "system" else ("user",)
    for place, message in enumerate(messages):
        if not isinstance(message, Mapping):
            return f"a message is {_kind(message)}, not a mapping"
        role, content = _role(message), message.get("content")
        if role is None:
            return "a message without a role"
        if role not in ROLES:
            return f"unknown role {begins(role, 30)}"
        if role != (expected[place] if place < len(expected) else _AFTER[_role(messages[place - 1])]):
            return "roles out of order"
        if not isinstance(content, str):
            return f"content is {_kind(content)}, not text"
        if not is_unicode(content):
            return "content with half a surrogate pair"
        if not content or content.isspace():
            return "empty content"
    return None


def _kind(value: object) -> str:
    """What a value is, in JSON's words."""
    return _KINDS.get(type(value), "text" if isinstance(value, str) else f"a {type(value).__name__}")


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, Mapping) else None


def is_unicode(text: str) -> bool:
    """False for half a surrogate pair, which JSON can spell and no tokenizer can read."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False
