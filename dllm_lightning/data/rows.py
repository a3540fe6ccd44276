"""Rows read again and again in the same order, whole or in shares that several readers take side by side.

A row is a dict that should have a `messages` list. What is wrong with one row is for others to judge and count, so a
row that cannot be read is handed on as `Unread`; what is wrong with a whole file or set is said where it is read.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from typing import Any


class BadData(ValueError):
    """A source that cannot be trained on."""


class Rows(ABC):
    """Some rows, and a way to know that they are still the same."""

    @abstractmethod
    def __iter__(self) -> Iterator[Any]: ...

    @property
    @abstractmethod
    def fingerprint(self) -> str | None:
        """Another one when the rows may have changed; None when that cannot be known."""

    @abstractmethod
    def where(self, number: int) -> str:
        """How a person finds a row, by its number from 0."""

    def unread(self) -> Iterator[Callable[[], Any]]:
        """The rows before the work of reading them is done: a call each."""
        return (partial(_itself, row) for row in self)

    def share(self, part: int, parts: int, skip: int = 0, place: Any = None) -> Reader:
        """Every `parts`-th row from row `skip` on; a reader that stopped at `place` goes on there."""
        return Counting(self, part, parts, skip, place)


class Reader(ABC):
    """Rows and their numbers, up to a `place`: a plain value that says where to go on."""

    @abstractmethod
    def __next__(self) -> tuple[int, Any]: ...

    @property
    @abstractmethod
    def place(self) -> Any: ...

    @abstractmethod
    def where(self, number: int) -> str:
        """How a person finds a row that was given with this number."""

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        return self


class Counting(Reader):
    """A reader that counts, and passes over rows without reading them."""

    def __init__(self, rows: Rows, part: int, parts: int, skip: int = 0, place: int | None = None) -> None:
        self.rows, self.start, self.parts, self.taken = rows, skip + part, parts, place or 0
        self._unread = islice(rows.unread(), self.start + self.taken * parts, None, parts)

    def __next__(self) -> tuple[int, Any]:
        row = next(self._unread)()
        self.taken += 1
        return self.start + (self.taken - 1) * self.parts, row

    @property
    def place(self) -> int:
        return self.taken

    def where(self, number: int) -> str:
        return self.rows.where(number)


@dataclass(frozen=True)
class Some(Rows):
    """A number of rows drawn by seed, in their old order."""

    rows: Rows
    limit: int
    seed: int

    def __iter__(self) -> Iterator[Any]:
        return (row for number, row in enumerate(self.rows) if number in self._chosen)

    @cached_property
    def _chosen(self) -> frozenset[int]:
        total = sum(1 for _ in self.rows.unread())
        return frozenset(random.Random(self.seed).sample(range(total), min(self.limit, total)))

    @property
    def fingerprint(self) -> str | None:
        known = self.rows.fingerprint
        return known and f"{self.limit} by {self.seed} of {known}"

    def where(self, number: int) -> str:
        return self.rows.where(sorted(self._chosen)[number])


@dataclass(frozen=True)
class First(Rows):
    """The first rows, of which a stream knows at once which they are."""

    rows: Rows
    limit: int

    def __iter__(self) -> Iterator[Any]:
        return islice(self.rows, self.limit)

    @property
    def fingerprint(self) -> str | None:
        known = self.rows.fingerprint
        return known and f"first {self.limit} of {known}"

    def where(self, number: int) -> str:
        return self.rows.where(number)


def checked(row: Any, where: object) -> Any:
    """The first row of a file or set, which shows whether its rows have messages."""
    if isinstance(row, Mapping) and "messages" not in row:
        raise BadData(
            f"The rows of {where} have no 'messages' column, only {', '.join(map(repr, row))}. A row is "
            f'{{"messages": [{{"role": "user", "content": "..."}}, {{"role": "assistant", "content": "..."}}]}}.'
        )
    return row


def _itself(row: Any) -> Any:
    return row
