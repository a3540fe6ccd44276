"""Which documents meet in which batch, as a function of (seed, epoch) alone, and the loader that walks it.

An `Order` speaks of global batches, the same on every rank; a `Loader` takes one rank's share of each. Nothing random
is kept between batches, so a run that stopped after n batches of an epoch goes on with batch n + 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from dllm_lightning.data.packing import Layout, Tokens, pack
from dllm_lightning.types import Canvas

Row = Sequence[int]
"""The documents of one row, by number."""


def shuffled(count: int, *seeds: int) -> np.ndarray:
    """The numbers below `count` in an order that the seeds decide."""
    return np.random.default_rng(seeds).permutation(count)


@dataclass(frozen=True, eq=False)
class Order(ABC):
    """Documents of the given `lengths`, in global batches of `size` rows."""

    lengths: np.ndarray
    size: int
    seed: int

    @abstractmethod
    def batches(self, epoch: int) -> list[list[Row]]:
        """The global batches of an epoch; as many in each epoch."""

    @abstractmethod
    def __len__(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Shuffled(Order):
    """A training order: all batches are whole (the few rows left over rest for this epoch), all epochs equally long.

    A document of weight w is seen w times per epoch: a weight of 0.3 means in three epochs of ten, evenly spread. When
    there are not enough rows for one batch, they are one smaller batch.
    """

    weights: np.ndarray

    def chosen(self, epoch: int) -> np.ndarray:
        """The documents of an epoch, each as often as its weight says, in random order."""
        count = len(self.lengths)
        turn = (shuffled(count, self.seed) + 0.5) / count
        times = np.floor(self.weights * (epoch + 1) + turn) - np.floor(self.weights * epoch + turn)
        documents = np.repeat(np.arange(count), times.astype(int))
        return documents[shuffled(len(documents), self.seed, epoch)]

    @abstractmethod
    def rows(self, epoch: int) -> list[Row]:
        """The rows of an epoch in random order."""

    @cached_property
    def _count(self) -> int:
        return max(1, len(self.rows(0)) // self.size)

    def __len__(self) -> int:
        return self._count

    def whole(self, rows: list[Row]) -> list[Row]:
        """As many rows as fill the batches; a row comes again where an epoch has too few."""
        return rows if len(rows) < self.size else list(islice(cycle(rows), len(self) * self.size))


@dataclass(frozen=True, eq=False)
class Packed(Shuffled):
    """Rows of up to `capacity` slots, each packed with several documents.

    Packing looks at lengths alone, so every epoch has rows of the same shapes, and the epoch decides which of the
    equally long documents stands where: neighbours change, the number of rows does not.
    """

    capacity: int

    def rows(self, epoch: int) -> list[Row]:
        documents = self.chosen(epoch)
        packed = pack(self.lengths[documents], self.capacity)
        return [documents[packed[row]].tolist() for row in shuffled(len(packed), self.seed, epoch, 1)]

    def batches(self, epoch: int) -> list[list[Row]]:
        return _cut(self.whole(self.rows(epoch)), self.size)


@dataclass(frozen=True, eq=False)
class Bucketed(Shuffled):
    """One document per row, and batches of similar lengths in random order."""

    window: int = 64  # batches that are sorted by length together

    def rows(self, epoch: int) -> list[Row]:
        return [[document] for document in self.chosen(epoch).tolist()]

    def batches(self, epoch: int) -> list[list[Row]]:
        windows = _cut(self.whole(self.rows(epoch)), self.window * self.size)
        batches = [
            batch for rows in windows for batch in _cut(sorted(rows, key=lambda row: self.lengths[row[0]]), self.size)
        ]
        return [batches[batch] for batch in shuffled(len(batches), self.seed, epoch, 1)]


@dataclass(frozen=True, eq=False)
class Once(Order):
    """The order of an evaluation, the same in every epoch: each document once, alone in its row.

    Batches are of similar lengths and stand in random order, so that a limited number of them is a fair sample.
    """

    def batches(self, epoch: int = 0) -> list[list[Row]]:
        batches = _cut([[document] for document in np.argsort(self.lengths, kind="stable").tolist()], self.size)
        return [batches[batch] for batch in shuffled(len(batches), self.seed)]

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.size)


class Loader:
    """One rank's share of each batch of an order, as canvases.

    A batch that is not whole is dealt out evenly; a rank left without a row gets an empty one, so that all ranks take
    as many steps and no document is seen twice.
    """

    def __init__(
        self,
        documents: Dataset[list[Tokens]],
        order: Order,
        layout: Layout,
        rank: int = 0,
        world: int = 1,
        **options: Any,
    ) -> None:
        self.documents, self.order, self.layout = documents, order, layout
        self.rank, self.world, self.options = rank, world, options
        self._iterator: Iterator[Canvas] | None = None  # Lightning looks for this name to stop the workers

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Canvas]:
        return self.walk(epoch=0, start=0)

    def walk(self, epoch: int, start: int) -> Iterator[Canvas]:
        """The batches of an epoch from number `start` on."""
        shares = [self.share(batch) for batch in self.order.batches(epoch)[start:]]
        loader = DataLoader(
            self.documents,
            batch_sampler=shares,
            collate_fn=self.layout,
            generator=torch.Generator(),  # the loader's own: it must not advance anyone's random state
            **self.options,
        )
        self._iterator = iter(loader)
        yield from self._iterator

    def share(self, batch: list[Row]) -> list[Row]:
        """The rows of a global batch that belong to this rank."""
        start, stop = (len(batch) * rank // self.world for rank in (self.rank, self.rank + 1))
        return batch[start:stop] or [[]]


class TrainingLoader(Loader):
    """A loader that knows its epoch and how many batches of it were handed out, so that it can go on after a stop.

    Lightning calls `set_epoch` on `sampler`, and keeps `state_dict` in its checkpoints. What workers have prepared
    ahead does not count. The state speaks of rows of the whole global batch, so that a run may go on with another
    number of processes.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.epoch = self.start = self.done = 0
        self.in_hand = 0
        """Batches that were handed out last and are not trained on yet, when the state is asked for."""

    @property
    def sampler(self) -> TrainingLoader:
        return self

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.start, self.done = epoch, 0, 0

    def __iter__(self) -> Iterator[Canvas]:
        self.done, self.start = self.start, 0  # runs at the first batch: Lightning sets the epoch after calling iter
        for batch in self.walk(self.epoch, self.done):
            self.done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "rows": (self.done - self.in_hand) * self.order.size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch = state["epoch"]
        self.start = self.done = state["rows"] // self.order.size


def _cut(items: list[Any], size: int) -> list[list[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
