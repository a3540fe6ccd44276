"""Order is a function of (seed, epoch), ranks share it without gaps or repeats, and a stopped loader goes on."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import Dataset

from dllm_lightning.data.order import Bucketed, Loader, Once, Order, Packed, Shuffled, TrainingLoader
from dllm_lightning.data.packing import Layout, Tokens
from dllm_lightning.types import Canvas

COUNT, WIDTH = 203, 32
LENGTHS = np.random.default_rng(1).integers(2, WIDTH, COUNT)
EVEN = np.ones(COUNT)


class Numbered(Dataset[list[Tokens]]):
    """Document i is the id i, as often as it is long."""

    def __getitem__(self, row: Sequence[int]) -> list[Tokens]:
        return [Tokens(np.full(LENGTHS[i], i, np.int32), np.ones(LENGTHS[i], bool)) for i in row]


def order(kind: str, size: int = 4, weights: np.ndarray = EVEN, seed: int = 0) -> Shuffled:
    if kind == "packed":
        return Packed(LENGTHS, size, seed, weights, WIDTH)
    return Bucketed(LENGTHS, size, seed, weights, window=4)


def loader(kind: str, **options: Any) -> TrainingLoader:
    return TrainingLoader(Numbered(), order(kind), Layout(0, WIDTH if kind == "packed" else None), **options)


def seen(batches: list[list[Sequence[int]]]) -> Counter[int]:
    return Counter(chain.from_iterable(chain.from_iterable(batches)))


def ids(canvases: Any) -> list[Any]:
    return [canvas.ids.tolist() for canvas in canvases]


both = pytest.mark.parametrize("kind", ["packed", "bucketed"])


@both
def test_the_order_depends_on_seed_and_epoch_alone(kind: str) -> None:
    assert order(kind).batches(3) == order(kind).batches(3)
    assert order(kind).batches(3) != order(kind).batches(4)
    assert order(kind).batches(3) != order(kind, seed=1).batches(3)


@both
def test_every_document_is_seen_once_per_epoch(kind: str) -> None:
    assert seen(order(kind, size=1).batches(2)) == Counter(range(COUNT))


@both
def test_batches_are_whole_and_epochs_equally_long(kind: str) -> None:
    weights = np.where(np.arange(COUNT) < 90, 0.37, 1.6)
    part = order(kind, weights=weights)
    for epoch in range(6):
        batches = part.batches(epoch)
        assert len(batches) == len(part) and {len(batch) for batch in batches} == {part.size}


def test_neighbours_change_from_epoch_to_epoch() -> None:
    def pairs(epoch: int) -> set[frozenset[int]]:
        rows = chain.from_iterable(order("packed").batches(epoch))
        return {frozenset(pair) for row in rows for pair in pairwise(row)}

    assert len(pairs(0) & pairs(1)) < len(pairs(0)) / 2


def test_a_weight_is_how_often_an_epoch_sees_a_document() -> None:
    weights = np.where(np.arange(COUNT) < 50, 0.3, np.where(np.arange(COUNT) < 100, 2.0, 1.0))
    part = order("bucketed", size=1, weights=weights)
    times = sum((Counter(part.chosen(epoch).tolist()) for epoch in range(10)), start=Counter[int]())
    assert {times[i] for i in range(50)} == {3} and {times[i] for i in range(50, 100)} == {20}
    assert {times[i] for i in range(100, COUNT)} == {10}


def test_batches_have_documents_of_similar_length() -> None:
    def padding(batches: list[list[Sequence[int]]]) -> float:
        sizes = [[LENGTHS[row[0]] for row in batch] for batch in batches]
        return sum(max(batch) * len(batch) - sum(batch) for batch in sizes) / LENGTHS.sum()

    assert padding(Bucketed(LENGTHS, 8, 0, EVEN).batches(0)) < 0.05
    assert padding(Once(LENGTHS, 8, 0).batches()) < 0.05


def test_a_set_smaller_than_a_batch_is_one_batch() -> None:
    few = Packed(np.array([3, 4, 5]), 8, 0, np.ones(3), 6)
    assert len(few) == 1 and [len(batch) for batch in few.batches(0)] == [3]


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize(
    "part",
    [order("packed", 15), order("bucketed", 15), Once(LENGTHS, 15, 0), Once(LENGTHS, 202, 0)],
)
def test_ranks_share_a_batch_without_gaps_or_repeats(part: Order, world: int) -> None:
    ranks = [Loader(Numbered(), part, Layout(0), rank, world) for rank in range(world)]
    for batch in part.batches(0):
        shares = [rank.share(batch) for rank in ranks]
        assert [row for share in shares for row in share if row] == batch
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("world", [1, 2, 4])
def test_an_evaluation_sees_each_document_once_and_ranks_take_equally_many_steps(world: int) -> None:
    part = Once(LENGTHS, 2 * world, 0)
    ranks = [list(Loader(Numbered(), part, Layout(COUNT), rank, world)) for rank in range(world)]
    assert {len(canvases) for canvases in ranks} == {len(part)}
    shown = [row[0].item() for canvas in chain.from_iterable(ranks) for row in canvas.ids if row[0] != COUNT]
    assert sorted(shown) == list(range(COUNT))


@both
@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_goes_on_where_it_stopped_whatever_workers_had_prepared(kind: str, workers: int) -> None:
    whole = loader(kind)
    whole.set_epoch(5)
    expected = ids(whole)
    stopped = loader(kind, num_workers=workers)
    stopped.set_epoch(5)
    begun = ids(islice(stopped, 7))
    state = stopped.state_dict()
    assert state == {"epoch": 5, "rows": 7 * stopped.order.size}
    resumed = loader(kind, num_workers=workers)
    resumed.load_state_dict(state)
    assert len(resumed) == len(whole)  # of the epoch, not of what is left of it
    assert begun + ids(resumed) == expected
    assert resumed.state_dict() == whole.state_dict()


def test_the_epoch_may_be_set_after_iter_was_called() -> None:
    resumed, fresh = loader("packed"), loader("packed")
    resumed.load_state_dict({"epoch": 0, "rows": len(resumed) * resumed.order.size})
    batches = iter(resumed)
    resumed.set_epoch(1)
    fresh.set_epoch(1)
    assert ids(batches) == ids(fresh) != []


def test_a_loader_leaves_everyones_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    ids(loader("packed", num_workers=1))
    assert torch.equal(before, torch.random.get_rng_state())


class Watcher(L.LightningModule):
    """Writes down what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.shown: list[list[int]] = []

    def training_step(self, canvas: Canvas, batch_idx: int) -> torch.Tensor:
        self.shown.append(canvas.ids[:, 0].tolist())
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(folder: Path, epochs: int, every: int | None = None, resume: Path | None = None, **options: Any) -> Watcher:
    keep = ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=every) if every else None
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, use_distributed_sampler=False, callbacks=keep,
        enable_checkpointing=every is not None, enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip
    watcher = Watcher()
    trainer.fit(watcher, loader("packed"), ckpt_path=resume)
    return watcher


def test_a_run_resumed_anywhere_sees_what_the_unbroken_run_saw(tmp_path: Path) -> None:
    length = len(order("packed"))
    unbroken = train(tmp_path, epochs=3, every=7).shown
    assert len(unbroken) == 3 * length and len({str(batch) for batch in unbroken}) == 3 * length
    for step in range(7, 3 * length, 7):
        assert train(tmp_path, epochs=3, resume=tmp_path / f"step={step}.ckpt").shown == unbroken[step:]


def test_a_run_resumed_after_a_whole_epoch_goes_on_with_the_next(tmp_path: Path) -> None:
    length = len(order("packed"))
    unbroken = train(tmp_path, epochs=3, every=length).shown
    assert train(tmp_path, epochs=3, resume=tmp_path / f"step={length}.ckpt").shown == unbroken[length:]


def test_limited_epochs_each_begin_an_order_of_their_own(tmp_path: Path) -> None:
    shown = train(tmp_path, epochs=2, limit_train_batches=5).shown
    expected = [[row[0] for row in batch] for epoch in range(2) for batch in order("packed").batches(epoch)[:5]]
    assert shown == expected
