"""A few rows of a large table at a time: what is read and written many times should not leave the cache in between."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

BLOCK = {"cpu": 2**18}
"""Numbers of a table that are worked on at a time, by device."""
LARGE_BLOCK = 2**23
"""The same for devices that want to be kept busy."""


def rows_at_a_time(table: Tensor) -> int:
    return max(1, BLOCK.get(table.device.type, LARGE_BLOCK) // max(1, table.shape[1]))


def blocks(*tables: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same few rows of each table, as views. How many they are is told by the first."""
    size = rows_at_a_time(tables[0])
    return zip(*(table.split(size) for table in tables), strict=True)
