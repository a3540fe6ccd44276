"""What a conversation must look like to be trained on or answered, and the short reasons why one is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROLES = ("system", "user", "assistant")
Message = Mapping[str, str]

_AFTER = {"user": "assistant", "assistant": "user"}


class BadRow(ValueError):
    """A row that cannot be trained on or answered; `reason` is short and the same for all rows of its kind."""

    def __init__(self, reason: str, row: object) -> None:
        shown = repr(row)
        shown = shown if len(shown) <= 200 else f"{shown[:200]} ..."
        super().__init__(f"This row cannot be used: {reason}. Rows are system (optional), user, assistant ...: {shown}")
        self.reason = reason
        self.row = row

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self.row)


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
    if not isinstance(messages, list | tuple) or not messages:
        return "no messages"
    expected = ("system", "user") if _role(messages[0]) == "system" else ("user",)
    for place, message in enumerate(messages):
        role = _role(message)
        if role not in ROLES:
            return "unknown role"
        if role != (expected[place] if place < len(expected) else _AFTER[_role(messages[place - 1])]):
            return "roles out of order"
        content = message.get("content")
        if not isinstance(content, str) or not _is_unicode(content):
            return "not text"
        if not content or content.isspace():
            return "empty content"
    return None


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, Mapping) else None


def _is_unicode(text: str) -> bool:
    """False for half a surrogate pair, which JSON can spell and no tokenizer can read."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False
