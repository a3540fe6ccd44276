"""Training on rows as they arrive, for sets too large to tokenise first.

A stream has no end: `trainer.max_steps` says when to stop, and `trainer.val_check_interval` when to validate. It has no
epochs either, so the processes that share it never wait for each other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from dllm_lightning.data.documents import Encoder
from dllm_lightning.data.order import shuffled
from dllm_lightning.data.packing import Layout, Tokens, pack
from dllm_lightning.data.rows import BadData, Rows
from dllm_lightning.data.store import Store
from dllm_lightning.types import Canvas

CHUNK = 256  # rows tokenised together
BUFFER = 16  # batches that are packed together
PATIENCE = 64  # chunks without a usable row


@dataclass(frozen=True)
class Inflow:
    """Rows without end: one source over and over, from row `skip` on, drawn in proportion to `weight`."""

    name: str
    rows: Rows
    weight: float
    skip: int = 0

    def share(self, rank: int, world: int) -> Iterator[Any]:
        for round_ in count():
            empty = True
            for row in self.rows.share(rank, world, self.skip):
                empty = False
                yield row
            if empty:
                raise BadData(f"{self.name} has too few rows to stream to {world} processes, pass {round_ + 1}.")


class Stream(IterableDataset[Canvas]):
    """One rank's canvases: rows are drawn from the inflows, tokenised, and packed within a buffer of documents."""

    def __init__(
        self, inflows: Sequence[Inflow], encoder: Encoder, layout: Layout, size: int, seed: int, rank: int, world: int
    ) -> None:
        self.inflows, self.encoder, self.layout, self.size = list(inflows), encoder, layout, size
        self.seed, self.rank, self.world = seed, rank, world

    def __iter__(self) -> Iterator[Canvas]:
        if get_worker_info() is not None:
            os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads did not survive the fork
        documents = self.documents()
        waiting: list[Tokens] = []
        for filling in count():
            self.fill(waiting, documents)
            rows = self.rows(waiting)
            whole = len(rows) - len(rows) % self.size
            order = shuffled(whole, self.seed, self.rank, filling) if self.layout.width else np.arange(whole)
            for batch in shuffled(whole // self.size, self.seed, self.rank, filling):
                chosen = order[batch * self.size : (batch + 1) * self.size]
                yield self.layout([[waiting[document] for document in rows[row]] for row in chosen])
            waiting = [waiting[document] for row in rows[whole:] for document in row]

    def fill(self, waiting: list[Tokens], documents: Iterator[Tokens]) -> None:
        """Takes documents until they make BUFFER batches."""
        width = self.layout.width
        rows = sum(len(document.ids) / width if width else 1.0 for document in waiting)
        while rows < BUFFER * self.size:
            waiting.append(next(documents))
            rows += len(waiting[-1].ids) / width if width else 1.0

    def rows(self, documents: Sequence[Tokens]) -> list[list[int]]:
        """Packed rows, the fullest first; or single documents by length."""
        lengths = np.array([len(document.ids) for document in documents])
        if self.layout.width is None:
            return [[document] for document in np.argsort(lengths, kind="stable").tolist()]
        return sorted(pack(lengths, self.layout.width), key=lambda row: -lengths[row].sum())

    def documents(self) -> Iterator[Tokens]:
        """Documents without end."""
        mixed, in_vain = self.mixed(), 0
        while in_vain < PATIENCE:
            store = Store.of([self.encoder(list(islice(mixed, CHUNK)))])
            yield from (store[document] for document in range(len(store)))
            in_vain = 0 if len(store) else in_vain + 1
        reasons = ", ".join(f"{number} {reason}" for reason, number in store.counts.dropped.most_common())
        raise BadData(f"The last {PATIENCE * CHUNK} rows of the stream have no usable row among them ({reasons}).")

    def mixed(self) -> Iterator[Any]:
        """Rows of all inflows, each drawn in proportion to its weight."""
        shares = [inflow.share(self.rank, self.world) for inflow in self.inflows]
        weights = np.array([inflow.weight for inflow in self.inflows])
        draws = np.random.default_rng((self.seed, self.rank))
        while True:
            for inflow in draws.choice(len(shares), CHUNK, p=weights / weights.sum()):
                yield next(shares[inflow])


class StreamLoader:
    """Batches of a stream, prepared by at most one worker; after a stop it runs over what was done and goes on.

    Each epoch, should there be several, goes on where the last one stopped. Lightning takes a batch one step early from
    a loader without a length, so a batch counts as done when the next one is asked for.
    """

    def __init__(self, stream: Stream, num_workers: int = 0, pin_memory: bool = False) -> None:
        self.loader: DataLoader[Canvas] = DataLoader(
            stream, None, num_workers=min(num_workers, 1), pin_memory=pin_memory, generator=torch.Generator()
        )
        self.done = 0
        self._batches: Iterator[Canvas] | None = None
        self._iterator: Iterator[Canvas] | None = None  # Lightning looks for this name to stop the worker

    def __iter__(self) -> Iterator[Canvas]:
        self._batches = self._batches or self._walk()
        return self._batches

    def _walk(self) -> Iterator[Canvas]:
        self._iterator = iter(self.loader)
        for batch in islice(self._iterator, self.done, None):
            yield batch
            self.done += 1

    def state_dict(self) -> dict[str, int]:
        return {"batches": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.done, self._batches = state["batches"], None
