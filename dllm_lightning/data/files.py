"""Rows of local files: JSON lines, JSON arrays (both may be gzipped) and Parquet.

A line that is no UTF-8 or no JSON is one row that cannot be read; a file that breaks off, or is not what its name
says, is refused as a whole.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from dllm_lightning.data.messages import Unread
from dllm_lightning.data.rows import BadData, Rows, checked

SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".parquet")
BOM = b"\xef\xbb\xbf"
START = 200  # bytes kept of a line that cannot be read

Found = Iterator[tuple[str, int, Callable[[], Any]]]
"""Rows as calls that read them, each with its number in the file, and what that numbers: lines or rows, from 1."""


@dataclass(frozen=True)
class Files(Rows):
    """The rows of local files, one file after the other."""

    paths: tuple[Path, ...]

    def __iter__(self) -> Iterator[Any]:
        return (read() for read in self.unread())

    def unread(self) -> Iterator[Callable[[], Any]]:
        return (read for path in self.paths for _, _, read in _rows(path))

    def where(self, number: int) -> str:
        for path in self.paths:
            for kind, place, _ in _rows(path):
                if number == 0:
                    return f"{path}, {kind} {place},"
                number -= 1
        raise IndexError(f"There are {number + 1} rows too few.")

    @property
    def fingerprint(self) -> str:
        stats = [(path.resolve(), path.stat()) for path in self.paths]
        return " ".join(f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats)


def _rows(path: Path) -> Found:
    rows = _parquet(path) if path.suffix == ".parquet" else _json(path)
    try:
        for first in rows:
            checked(first[2](), path)
            yield first
            yield from rows
    except (OSError, EOFError, zlib.error) as error:
        raise BadData(f"The file {path} cannot be read ({error}). Is it complete?") from error


def _json(path: Path) -> Found:
    """One JSON value per line, or the values of one array."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        if file.read(len(BOM)) != BOM:
            file.seek(0)
        lines: Iterator[tuple[int, bytes]] = filter(lambda numbered: not numbered[1].isspace(), enumerate(file, 1))
        number, first = next(lines, (1, b""))
        if first.lstrip().startswith(b"["):
            rows = _array(first + file.read(), path)
            yield from (("row", place, partial(_itself, row)) for place, row in enumerate(rows, 1))
            return
        if ".json" in path.suffixes and isinstance(parsed(first), Unread):
            rest = [*lines]
            _refuse_object(first + b"".join(line for _, line in rest), path)
            lines = iter(rest)
        for place, line in chain([(number, first)] if first else [], lines):
            yield "line", place, partial(parsed, line)


def parsed(line: bytes) -> Any:
    """The value on a line."""
    try:
        text = line.strip().decode()
    except UnicodeDecodeError:
        return Unread("not UTF-8", line.strip()[:START].decode(errors="backslashreplace"))
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # also a number of thousands of digits, and a nest of thousands of brackets
        return Unread("not JSON", text[:START])


def _array(content: bytes, path: Path) -> list[Any]:
    try:
        return list(json.loads(content.decode()))
    except (ValueError, RecursionError) as error:
        raise BadData(f"The file {path} begins like a JSON array but is none ({error}).") from error


def _refuse_object(content: bytes, path: Path) -> None:
    """A file that is one object, written over several lines."""
    whole = parsed(content)
    if isinstance(whole, Mapping):
        raise BadData(
            f"The file {path} holds one JSON object ({', '.join(map(repr, whole))}), and no rows. "
            f"Give an array of rows, or one row on each line."
        )


def _parquet(path: Path) -> Found:
    from pyarrow import ArrowInvalid, parquet, types  # type: ignore[import-untyped]

    try:
        file = parquet.ParquetFile(path)
        names = file.schema_arrow.names
        if "messages" in names:
            kind = file.schema_arrow.field("messages").type
            if not (types.is_list(kind) or types.is_large_list(kind)) or not types.is_struct(kind.value_type):
                raise BadData(f"The file {path} has 'messages' of type {kind}, and not a list of role and content.")
        batches = file.iter_batches(columns=["messages"] if "messages" in names else None)
        rows = (row for batch in batches for row in batch.to_struct_array())
        yield from (("row", place, row.as_py) for place, row in enumerate(rows, 1))
    except ArrowInvalid as error:
        raise BadData(f"The file {path} is not a Parquet file, or not all of one ({error}).") from error


def _itself(row: Any) -> Any:
    return row
