"""Rows read again and again in the same order: from local files, or from a split of a set on the Hugging Face hub.

A row is a dict that should have a `messages` list. What is wrong with one row is for others to judge and count, so a
line that is not JSON is handed on as None; what is wrong with a whole file or set is said here.
"""

from __future__ import annotations

import gzip
import json
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, dropwhile, islice
from pathlib import Path
from typing import Any

SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".parquet")


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

    def share(self, part: int, parts: int, start: int = 0) -> Iterator[Any]:
        """Every `parts`-th row from row `start` on, for processes that read side by side."""
        return islice(self, start + part, None, parts)


@dataclass(frozen=True)
class Files(Rows):
    """The rows of local files, one file after the other."""

    paths: tuple[Path, ...]

    def __iter__(self) -> Iterator[Any]:
        for path in self.paths:
            try:
                yield from checked(_parquet(path) if path.suffix == ".parquet" else _json(path), path)
            except (OSError, EOFError, UnicodeDecodeError) as error:
                raise BadData(f"The file {path} cannot be read ({error}). Is it complete?") from error

    @property
    def fingerprint(self) -> str:
        stats = [(path.resolve(), path.stat()) for path in self.paths]
        return " ".join(f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats)


@dataclass(frozen=True, eq=False)
class Hub(Rows):
    """One split of a set on the hub; `rows` is what `datasets` gave for it."""

    rows: Any
    name: str

    def __iter__(self) -> Iterator[Any]:
        return checked(self.rows, self.name)

    @property
    def fingerprint(self) -> str | None:
        known = getattr(self.rows, "_fingerprint", None)  # a stream has none
        return known and f"{self.name} {known}"

    def share(self, part: int, parts: int, start: int = 0) -> Iterator[Any]:
        from datasets.distributed import split_dataset_by_node

        if start:  # `skip` counts differently once a set is split by files
            return super().share(part, parts, start)
        return checked(split_dataset_by_node(self.rows, part, parts), self.name)


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
        total = sum(1 for _ in self.rows)
        return frozenset(random.Random(self.seed).sample(range(total), min(self.limit, total)))

    @property
    def fingerprint(self) -> str | None:
        known = self.rows.fingerprint
        return known and f"{self.limit} by {self.seed} of {known}"


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


def checked(rows: Any, where: object) -> Iterator[Any]:
    """The rows, unless the first one shows that there are no messages."""
    for number, row in enumerate(rows):
        if number == 0 and isinstance(row, Mapping) and "messages" not in row:
            raise BadData(
                f"The rows of {where} have no 'messages' column, only {', '.join(map(repr, row))}. A row is "
                f'{{"messages": [{{"role": "user", "content": "..."}}, {{"role": "assistant", "content": "..."}}]}}.'
            )
        yield row


def _json(path: Path) -> Iterator[Any]:
    """One JSON value per line, or the values of one array; None for a line that is not JSON."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        written = dropwhile(str.isspace, lines)
        first = next(written, "")
        if not first.lstrip().startswith("["):
            yield from (_parsed(line) for line in chain([first], written) if line and not line.isspace())
            return
        try:
            yield from json.loads(first + "".join(written))
        except json.JSONDecodeError as error:
            raise BadData(f"The file {path} begins like a JSON array but is none ({error}).") from error


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def _parquet(path: Path) -> Iterator[Any]:
    from pyarrow import ArrowInvalid, parquet  # type: ignore[import-untyped]

    try:
        file = parquet.ParquetFile(path)
    except ArrowInvalid as error:
        raise BadData(f"The file {path} is not a Parquet file ({error}).") from error
    columns = ["messages"] if "messages" in file.schema_arrow.names else None
    for batch in file.iter_batches(columns=columns):
        yield from batch.to_pylist()
