"""Documents laid side by side in rows of one width, so that hardly a slot is padding.

`pack` decides who shares a row, `Layout` writes the rows as a canvas. Neither knows what a document says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from dllm_lightning.types import Canvas


class Tokens(NamedTuple):
    """One document as arrays: its ids, and which of them are answers."""

    ids: np.ndarray
    editable: np.ndarray


def pack(lengths: Sequence[int] | np.ndarray, capacity: int) -> list[list[int]]:
    """Best-fit decreasing: the longest document first, each into the fullest row that still has room for it.

    Returns rows of indices into `lengths`. Documents of equal length are taken in the order given, and the shape of the
    rows depends on the lengths alone. The rows with room are found in a bit per free slot, so n documents take
    O(n log n) for the sorting and O(capacity / 64) machine words each.
    """
    rows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # by the number of free slots
    open_ = 0  # bit r is set when some row has exactly r free slots
    for document in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        length = int(lengths[document])
        if length > capacity:
            raise ValueError(f"A document of {length} slots does not fit into a row of {capacity}; cut it first.")
        if fitting := open_ >> length:
            room = length + (fitting & -fitting).bit_length() - 1
            row = with_room[room].pop()
            if not with_room[room]:
                open_ ^= 1 << room
            rows[row].append(document)
        else:
            row, room = len(rows), capacity
            rows.append([document])
        if room > length:
            with_room[room - length].append(row)
            open_ |= 1 << (room - length)
    return rows


@dataclass(frozen=True)
class Layout:
    """Rows of documents to a canvas: side by side, counted from 1, then padding up to `width` or the longest row."""

    pad_id: int
    width: int | None = None

    def __call__(self, rows: Sequence[Sequence[Tokens]]) -> Canvas:
        longest = max(1, *(sum(len(document.ids) for document in row) for row in rows))
        shape = len(rows), self.width or longest
        ids = np.full(shape, self.pad_id, dtype=np.int64)
        editable = np.zeros(shape, dtype=np.bool_)
        segment = np.zeros(shape, dtype=np.int64)
        for place, row in enumerate(rows):
            start = 0
            for number, document in enumerate(row, 1):
                stop = start + len(document.ids)
                ids[place, start:stop] = document.ids
                editable[place, start:stop] = document.editable
                segment[place, start:stop] = number
                start = stop
        return Canvas(torch.from_numpy(ids), torch.from_numpy(editable), torch.from_numpy(segment))
