"""Training on rows as they arrive, for sets too large to keep, shared by ranks and their workers.

A stream has no end: `trainer.max_steps` says when to stop, and `trainer.val_check_interval` when to validate. It has no
epochs either, so the processes that share it never wait for each other.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from dllm_lightning.data.flow import Flow, Place, Share
from dllm_lightning.data.rows import BadData
from dllm_lightning.types import Canvas, InvalidTokenizer

OPEN = 2  # batches that were given and may be unused

Stand = dict[str, Any]
"""A place of a worker, and how many of its batches were done since."""


class Stream(IterableDataset[Any]):
    """One rank's canvases: worker w of W of rank r is reader r W + w of all, and goes on where the stands say.

    Each comes with the number of its worker, and now and then with the place before it. A loader takes batches from its
    workers in turn and begins with the first, so after n batches its first worker stands in for worker n mod W.
    """

    def __init__(self, flow: Flow, rank: int, world: int) -> None:
        self.flow, self.rank, self.world = flow, rank, world
        self.done, self.stands = 0, list[Stand]()

    def __iter__(self) -> Iterator[tuple[int, Canvas, Place | None] | Exception]:
        info, workers = get_worker_info(), len(self.stands)
        if info is not None:
            os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads did not survive the fork
        worker = ((info.id if info else 0) + self.done) % workers
        stand = self.stands[worker]
        try:
            share = Share(self.flow, self.rank * workers + worker, self.world * workers, stand["place"])
            for batch, place in islice(share.batches(), stand["since"], None):
                yield worker, self.flow.layout(batch), place
        except (BadData, InvalidTokenizer) as error:
            yield error  # raised where it is read: a loader would wrap it in the worker's traceback


class StreamLoader:
    """Batches of a stream; after a stop it goes on behind the last one that was done, without doing the work again.

    Each epoch, should there be several, goes on where the last one stopped. With `early`, batches are taken one step
    before they are used, as Lightning does where it knows no end. `in_hand` is how many more are not used yet.
    """

    def __init__(self, stream: Stream, num_workers: int = 0, pin_memory: bool = False, early: bool = True) -> None:
        self.stream, self.early, self.in_hand = stream, early, 0
        self.loader: DataLoader[Any] = DataLoader(
            stream, None, num_workers=num_workers, pin_memory=pin_memory, generator=torch.Generator()
        )
        self.done = 0
        self.stands: list[Stand] = [{"place": None, "since": 0} for _ in range(max(1, num_workers))]
        self._given: deque[tuple[int, Place | None]] = deque()  # the last batches, done or not
        self._iterator: Iterator[Any] | None = None  # Lightning looks for this name to stop the workers

    def __iter__(self) -> Iterator[Canvas]:
        self.done, self.stands = self._without(self.early)
        self.stream.done, self.stream.stands = self.done, self.stands
        self._given.clear()
        self._iterator = iter(self.loader)
        try:
            for item in self._iterator:
                if isinstance(item, Exception):
                    raise item
                worker, canvas, place = item
                self._given.append((worker, place))
                if len(self._given) > OPEN:
                    self.done, self.stands = self._without(OPEN)
                    self._given.popleft()
                yield canvas
        finally:
            self._iterator = None  # stops the workers now, and not when the garbage is collected

    def state_dict(self) -> dict[str, Any]:
        """Where the readers of all ranks stand; all ranks have to ask for it together."""
        done, stands = self._without(self.early + self.in_hand)
        return {**self._shape, "done": done, "stands": _of_all_ranks(stands)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        there, here = ({name: each[name] for name in self._shape} for each in (state, self._shape))
        if there != here:
            was, is_ = (", ".join(f"{name}={value}" for name, value in shape.items()) for shape in (there, here))
            raise BadData(
                f"The checkpoint has stopped in a stream with {was}, and this run has {is_}. Go on with as many "
                f"processes, data.num_workers and data.batch_size as before."
            )
        self.done, self.stands = state["done"], state["stands"][self.stream.rank]
        self._given.clear()

    @property
    def seen(self) -> tuple[int, Counter[str]]:
        """How many rows this rank has read, and how many of them were dropped for which reason."""
        _, stands = self._without(self.early)
        seen = [stand["place"]["seen"] for stand in stands if stand["place"] is not None]
        dropped = sum((Counter(each["dropped"]) for each in seen), start=Counter[str]())
        return sum(each["rows"] for each in seen), dropped

    def _without(self, last: int) -> tuple[int, list[Stand]]:
        """How many batches are done, and the stands, when the last ones that were given are not done."""
        stands, done = [dict(stand) for stand in self.stands], list(self._given)[: max(0, len(self._given) - last)]
        for worker, place in done:
            if place is not None:
                stands[worker] = {"place": place, "since": 0}
            stands[worker]["since"] += 1
        return self.done + len(done), stands

    @property
    def _shape(self) -> dict[str, int]:
        """What a place depends on."""
        return {"processes": self.stream.world, "num_workers": len(self.stands), "batch_size": self.stream.flow.size}


def _of_all_ranks(stands: list[Stand]) -> list[list[Stand]]:
    """One rank writes the checkpoint of all."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [stands]
    everyone: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, stands)
    return everyone
