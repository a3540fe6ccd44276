"""What a task of the toy chat is: it asks a question, knows a right answer, and judges any answer from the text alone.

A wording such as "What is {a} plus {b}?" works in both directions: filled in it asks, matched it understands what was
asked. So an answer can be checked long after its question was drawn, with nothing but the two texts.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import ClassVar, NamedTuple

LEVELS = (1, 2, 3)
Fields = Mapping[str, str]

_TOKEN = re.compile(r"[a-z]+|\d+|[^\sa-z\d]")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_SILENT = {",", ".", "and"}
_LIST, _NUMBER, _WORD = r"\w+(?:(?: ,)? \w+)*", r"\d{1,9}", r"[a-z]+"


class Question(NamedTuple):
    """A question and one of its right answers."""

    text: str
    answer: str


@dataclass(frozen=True)
class Task(ABC):
    """One kind of question. Leaves say how it is worded, what fills the wording, and which answers are right.

    Placeholders: `{items}` is a list, `{a} {b} {c}` are numbers, anything else is one word.
    """

    wordings: ClassVar[tuple[str, ...]]

    @property
    def name(self) -> str:
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    @abstractmethod
    def draw(self, random: Random, level: int) -> Fields:
        """What is asked about at this level; some wording must have exactly these placeholders."""

    @abstractmethod
    def solve(self, fields: Fields, random: Random) -> str:
        """A right answer; where there are several, any of them."""

    def judge(self, fields: Fields, answer: list[str]) -> bool:
        """Whether the words of an answer are right. A task with several right answers says which."""
        return answer == words(self.solve(fields, Random(0)))

    def ask(self, random: Random, level: int = 1) -> Question:
        """Draws a question."""
        if level not in LEVELS:
            raise ValueError(f"level is one of {', '.join(map(str, LEVELS))}, but got {level!r}.")
        fields = self.draw(random, level)
        text = random.choice([w for w in self.wordings if placeholders(w) == set(fields)]).format(**fields)
        text = text[0].upper() + text[1:]
        return Question(text, self.solve(fields, random))

    def understand(self, question: str) -> Fields | None:
        """What a question of this task asks about; None when it is not of this task."""
        asked = normal(question).rstrip(" .?!:")
        return next((m.groupdict() for p in _patterns(self.wordings) if (m := p.fullmatch(asked))), None)

    def check(self, question: str, answer: str) -> bool:
        """Whether an answer to a question of this task is right; capitals, commas and "and" do not count."""
        fields = self.understand(question)
        if fields is None:
            raise ValueError(f"This is not a question of the task {self.name}: {question!r}.")
        return self.judge(fields, words(answer))


@cache
def placeholders(wording: str) -> set[str]:
    """The names in braces."""
    return set(_PLACEHOLDER.findall(wording))


def normal(text: str) -> str:
    """Lower case, one space between words, numbers and signs: "What is 3+4?" becomes "what is 3 + 4 ?"."""
    return " ".join(_TOKEN.findall(text.lower()))


def words(answer: str) -> list[str]:
    """What an answer says, without commas, full stops and "and"."""
    return [word for word in normal(answer).split() if word not in _SILENT]


def numbers(answer: list[str]) -> list[int]:
    """The words as numbers; empty when one of them is not a number."""
    return [int(word) for word in answer] if all(word.isdecimal() for word in answer) else []


def listing(items: list[str]) -> str:
    """Items as a person writes them: "apple pear and plum"; no commas, they would be half of what a model writes."""
    return " and ".join([" ".join(items[:-1]), items[-1]]) if len(items) > 1 else items[0]


@cache
def _patterns(wordings: tuple[str, ...]) -> list[re.Pattern[str]]:
    return [_pattern(wording) for wording in wordings]


def _pattern(wording: str) -> re.Pattern[str]:
    """A wording as a pattern over normal text."""
    parts: list[str] = []
    seen: set[str] = set()
    for index, part in enumerate(_PLACEHOLDER.split(wording)):
        if index % 2 == 0:
            parts.append(re.escape(normal(part)))
        elif part in seen:
            parts.append(f"(?P={part})")
        else:
            seen.add(part)
            kind = _LIST if part == "items" else _NUMBER if part in {"a", "b", "c"} else _WORD
            parts.append(f"(?P<{part}>{kind})")
    pattern = r"\ ".join(part for part in parts if part)
    return re.compile(pattern.removesuffix(r"\ \?").removesuffix(r"\ \."))
