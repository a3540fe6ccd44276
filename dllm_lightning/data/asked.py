"""What a model can be asked, as slots to write, and how what it wrote is read: a question, or a text with gaps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dllm_lightning.data.messages import Message
from dllm_lightning.data.template import ChatTemplate, Document


class Read(NamedTuple):
    """What was written, as text, and its number of tokens; `filled` are the texts of the gaps, where there were any."""

    text: str
    tokens: int
    filled: list[str] | None = None


class Asked(ABC):
    """Something to write: a document with slots for it."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What stands above the answer."""

    @abstractmethod
    def slots(self, length: int) -> int:
        """How many slots are to be written, where an answer has `length`."""

    @abstractmethod
    def extent(self, length: int) -> str:
        """What its document is made of, for a sentence."""

    @abstractmethod
    def document(self, template: ChatTemplate, length: int) -> Document:
        """The document. Raises BadRow where the template has no place for it."""

    @abstractmethod
    def ending(self, length: int) -> int:
        """How many of its last slots may hold the id that ends an answer."""

    def given(self, template: ChatTemplate) -> int:
        """How many slots before the first one to write already belong to the text that is shown."""
        return 0

    @abstractmethod
    def read(self, template: ChatTemplate, ids: Sequence[int]) -> Read:
        """The text that the ids in the slots, in order, make."""

    @abstractmethod
    def told(self) -> dict[str, Any]:
        """The same, for scripts."""


@dataclass(frozen=True)
class Question(Asked):
    """A conversation that waits for its next answer."""

    messages: Sequence[Message]

    @property
    def title(self) -> str:
        return self.messages[-1]["content"]

    def slots(self, length: int) -> int:
        return length

    def extent(self, length: int) -> str:
        return f"The conversation and length={length} slots for its answer make"

    def document(self, template: ChatTemplate, length: int) -> Document:
        return template.prompt(self.messages, length)

    def ending(self, length: int) -> int:
        return length

    def read(self, template: ChatTemplate, ids: Sequence[int]) -> Read:
        return Read(template.answer(ids), len(template.until_end(ids)))

    def told(self) -> dict[str, Any]:
        messages = [dict(message) for message in self.messages]
        return {"prompt": self.title} | ({"messages": messages} if len(messages) > 1 else {})
