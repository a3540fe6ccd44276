"""One reader's share of a mixture of sources, as batches, from a place that can be kept and gone back to.

Rows are drawn chunk by chunk and tokenised; documents wait until they fill some batches, and are packed together. Each
time this begins anew there is a `Place`: where the rows of the last chunk begin, how many of its documents were taken,
and the few documents that wait. Going on from it reads no row twice but those of one chunk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dllm_lightning.data.documents import Encoder
from dllm_lightning.data.order import shuffled
from dllm_lightning.data.packing import Layout, Tokens, pack
from dllm_lightning.data.rows import BadData, Reader, Rows
from dllm_lightning.data.store import Store
from dllm_lightning.data.wrong import OnBadRow, wrong

CHUNK = 256  # rows tokenised together
BUFFER = 16  # batches that are packed together
PATIENCE = 64  # chunks without a usable row

Batch = list[list[Tokens]]
Place = dict[str, Any]
"""Plain values and tensors, which travel between processes and in checkpoints."""


@dataclass(frozen=True)
class Inflow:
    """Rows without end: one source over and over, from row `skip` on, drawn in proportion to `weight`."""

    name: str
    rows: Rows
    weight: float
    skip: int = 0


class Endless:
    """A reader's share of an inflow, over and over."""

    def __init__(self, inflow: Inflow, part: int, parts: int, place: Any) -> None:
        self.inflow, self.part, self.parts = inflow, part, parts
        self.reader = self.open(place)

    def open(self, place: Any = None) -> Reader:
        return self.inflow.rows.share(self.part, self.parts, self.inflow.skip, place)

    def __next__(self) -> tuple[int, Any]:
        if (found := next(self.reader, None)) is None:
            self.reader = self.open()
            found = next(self.reader, None)
        if found is None:
            raise BadData(f"{self.inflow.name} has too few rows to stream to {self.parts} processes.")
        return found


@dataclass(frozen=True)
class Flow:
    """What all readers share: where rows come from and how they become batches of `size` rows."""

    inflows: Sequence[Inflow]
    encoder: Encoder
    layout: Layout
    size: int
    seed: int
    on_bad_row: OnBadRow = "skip"


class Share:
    """One reader of a flow, the `part`-th of `parts`, from a place on."""

    def __init__(self, flow: Flow, part: int, parts: int, place: Place | None = None) -> None:
        self.flow, self.part = flow, part
        self.filling = self.chunk = self.taken = self.rows = 0
        self.places: list[Any] = [None] * len(flow.inflows)  # of the sources, where the chunk begins
        self.dropped: Counter[str] = Counter()
        self.waiting: list[Tokens] = []
        if place is not None:
            self.filling, self.chunk, self.taken = place["filling"], place["chunk"], place["taken"]
            self.places, self.rows, self.dropped = place["sources"], place["rows"], Counter(place["dropped"])
            columns = (torch.split(place[name], place["lengths"]) for name in ("ids", "editable"))
            self.waiting = [Tokens(ids.numpy(), editable.numpy()) for ids, editable in zip(*columns, strict=True)]
        inflows = zip(flow.inflows, self.places, strict=True)
        self.sources = [Endless(inflow, part, parts, at) for inflow, at in inflows]

    @property
    def place(self) -> Place:
        ids = np.concatenate([np.empty(0, np.int32), *(document.ids for document in self.waiting)])
        editable = np.concatenate([np.empty(0, np.bool_), *(document.editable for document in self.waiting)])
        return {
            "filling": self.filling, "chunk": self.chunk, "taken": self.taken, "sources": self.places,
            "rows": self.rows, "dropped": dict(self.dropped),
            "ids": torch.from_numpy(ids), "editable": torch.from_numpy(editable),
            "lengths": [len(document.ids) for document in self.waiting],
        }  # fmt: skip

    def batches(self) -> Iterator[tuple[Batch, Place | None]]:
        """Batches without end; the first of those that are packed together come with the place before them."""
        documents, size = self.documents(), self.flow.size
        while True:
            place = self.place
            self.fill(documents)
            place["seen"] = {"rows": self.rows, "dropped": dict(self.dropped)}
            rows = self.packed()
            whole = len(rows) - len(rows) % size
            seeds = self.flow.seed, self.part, self.filling
            order = shuffled(whole, *seeds) if self.flow.layout.width else np.arange(whole)
            for number, batch in enumerate(shuffled(whole // size, *seeds)):
                chosen = order[batch * size : (batch + 1) * size]
                yield [[self.waiting[document] for document in rows[row]] for row in chosen], None if number else place
            self.waiting = [self.waiting[document] for row in rows[whole:] for document in row]
            self.filling += 1

    def fill(self, documents: Iterator[Tokens]) -> None:
        """Takes documents until they make BUFFER batches."""
        width = self.flow.layout.width
        rows = sum(len(document.ids) / width if width else 1.0 for document in self.waiting)
        while rows < BUFFER * self.flow.size:
            self.waiting.append(next(documents))
            rows += len(self.waiting[-1].ids) / width if width else 1.0

    def packed(self) -> list[list[int]]:
        """Packed rows of the documents that wait, the fullest first; or single documents by length."""
        lengths = np.array([len(document.ids) for document in self.waiting])
        if self.flow.layout.width is None:
            return [[document] for document in np.argsort(lengths, kind="stable").tolist()]
        return sorted(pack(lengths, self.flow.layout.width), key=lambda row: -lengths[row].sum())

    def documents(self) -> Iterator[Tokens]:
        """Documents without end, from the first of this chunk that was not taken."""
        in_vain = 0
        while in_vain < PATIENCE:
            self.places = [source.reader.place for source in self.sources]
            store = Store.of([self.flow.encoder(self.drawn())])
            if not self.taken:  # else it was counted before the stop
                self.rows, self.dropped = self.rows + store.counts.rows, self.dropped + store.counts.dropped
            while self.taken < len(store):
                self.taken += 1
                yield store[self.taken - 1]
            in_vain = 0 if len(store) else in_vain + 1
            self.chunk, self.taken = self.chunk + 1, 0
        reasons = ", ".join(f"{number} {reason}" for reason, number in store.counts.dropped.most_common())
        raise BadData(f"The last {PATIENCE * CHUNK} rows of the stream have no usable row among them ({reasons}).")

    def drawn(self) -> list[Any]:
        """The rows of this chunk, each from an inflow drawn in proportion to its weight."""
        weights, rows = np.array([inflow.weight for inflow in self.flow.inflows]), []
        draws = np.random.default_rng((self.flow.seed, self.part, self.chunk))
        for inflow in draws.choice(len(weights), CHUNK, p=weights / weights.sum()):
            source = self.sources[inflow]
            number, row = next(source)
            if self.flow.on_bad_row == "raise" and (fault := self.flow.encoder.fault(row)) is not None:
                raise wrong(source.reader.where(number), fault, row)
            rows.append(row)
        return rows
