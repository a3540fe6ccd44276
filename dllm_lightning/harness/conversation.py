"""What a task of the harness asks, as a conversation.

The harness hands over text. Where it was told to use a chat template it first asks ours to make that text of messages;
ours only writes them down, so that they can be read again, and no text of a task can become a control token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

MARK = "\x00messages\x00"


class Asked(NamedTuple):
    """Messages up to a question, and how the answer to it begins (often with nothing)."""

    messages: list[dict[str, str]]
    beginning: str


def written(messages: Sequence[Mapping[str, str]]) -> str:
    """Messages as a text that only `read` understands."""
    return MARK + json.dumps([dict(message) for message in messages])


def read(context: str) -> Asked:
    """The conversation in a context: the messages that were written, or the whole text as a user's first words."""
    if not context.startswith(MARK):
        return Asked([{"role": "user", "content": context.strip()}], "")
    messages = json.loads(context.removeprefix(MARK))
    beginning = messages.pop()["content"] if messages[-1]["role"] == "assistant" else ""
    return Asked(messages, beginning)
