"""A stream gives every row once in a pass, and goes on after a stop as if there had been none."""

from __future__ import annotations

import json
import multiprocessing
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import lightning as L
import numpy as np
import pytest
import torch

from dllm_lightning.data import BadData, Encoder, Layout, TuluDataModule, Turns, flow
from dllm_lightning.data.files import Files
from dllm_lightning.data.flow import Flow, Inflow, Share
from dllm_lightning.data.hub import Hub
from dllm_lightning.data.packing import Tokens
from dllm_lightning.data.rows import Rows
from dllm_lightning.data.stream import Stream, StreamLoader
from dllm_lightning.data.toy import generate, toy_tokenizer

TEMPLATE = Turns(toy_tokenizer())
ROWS = generate("train", 400, turns=3)
WRONG = [{"messages": []}, {"messages": [{"role": "robot", "content": "hm"}]}]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few batches meet many chunks and fillings."""
    monkeypatch.setattr(flow, "CHUNK", 11)
    monkeypatch.setattr(flow, "BUFFER", 3)


def written(file: Path, rows: Sequence[Any]) -> Path:
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def mixture(folder: Path, hub: bool = False) -> list[Inflow]:
    """A source of many rows, one whose few rows come round soon, some of them wrong, and one from the hub."""
    many = Files((written(folder / "a.jsonl", ROWS[:100]), written(folder / "b.jsonl", ROWS[100:250])))
    few = Files((written(folder / "few.jsonl", [*ROWS[250:267], *WRONG]),))
    inflows = [Inflow("many", many, 3.0, 20), Inflow("few", few, 1.0)]
    if hub:
        rows = datasets.Dataset.from_list(ROWS[300:330]).to_iterable_dataset(num_shards=4)
        inflows.append(Inflow("hub", Hub(rows, "hub/train"), 1.0))
    return inflows


def loader(
    inflows: list[Inflow], packing: bool = True, rank: int = 0, world: int = 1, workers: int = 0
) -> StreamLoader:
    layout = Layout(TEMPLATE.tokenizer.pad_token_id, 96 if packing else None)
    made = Flow(inflows, Encoder(TEMPLATE, 96), layout, size=2, seed=5)
    return StreamLoader(Stream(made, rank, world), workers)


def plain(batches: Any) -> list[Any]:
    return [[column.tolist() for column in canvas] for canvas in batches]


def through_a_file(state: Any, folder: Path) -> Any:
    """As a checkpoint keeps it."""
    torch.save(state, folder / "state")
    return torch.load(folder / "state", weights_only=True)


def stopped(loaders: list[StreamLoader], count: int) -> dict[str, Any]:
    """The state of all ranks after so many batches more, brought together as processes do it."""
    states = []
    for each in loaders:
        walk = iter(each)
        assert len([next(walk) for _ in range(count + 1)]) == count + 1  # the last one was not used
        states.append(each.state_dict())
        walk.close()
    return states[0] | {"stands": [state["stands"][0] for state in states]}


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("count", [37, 60])
@pytest.mark.parametrize("hub", [False, True])
def test_all_readers_together_see_each_row_once_in_a_pass(
    workers: int, world: int, count: int, hub: bool, tmp_path: Path
) -> None:
    rows: Rows = Files((written(tmp_path / "a.jsonl", ROWS[:count]),))
    if hub:
        rows = Hub(datasets.Dataset.from_list(ROWS[:count]).to_iterable_dataset(num_shards=6), "hub/train")
    parts = world * workers
    made = Flow([Inflow("a", rows, 1.0, 7)], Encoder(TEMPLATE, 96), Layout(0, 96), size=2, seed=0)
    seen: Counter[str] = Counter()
    for part in range(parts):
        share = Share(made, part, parts)
        for _ in range(2 * len(range(7 + part, count, parts))):  # two passes
            _, row = next(share.sources[0])
            seen[str(row["messages"])] += 1
    assert seen == Counter({str(row["messages"]): 2 for row in ROWS[7:count]})


@pytest.mark.parametrize("packing", [True, False])
def test_no_document_is_lost_between_the_rows_and_the_batches(packing: bool, tmp_path: Path) -> None:
    share, given, taken = Share(loader(mixture(tmp_path), packing).stream.flow, 0, 1), Counter[str](), Counter[str]()
    documents, before = share.documents, Counter[str]()

    def noted() -> Iterator[Tokens]:
        for document in documents():
            taken[str(document)] += 1
            yield document

    share.documents = noted  # type: ignore[method-assign]
    for batch, place in islice(share.batches(), 60):
        if place is not None:
            assert given + Counter(str(document) for document in Share(share.flow, 0, 1, place).waiting) == before
            before = Counter(taken)
        given.update(str(document) for row in batch for document in row)
    assert len(given) > 50


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize(("world", "hub"), [(1, False), (2, True)])
def test_after_any_stop_a_stream_is_the_unbroken_stream(packing: bool, world: int, hub: bool, tmp_path: Path) -> None:
    def ranks() -> list[StreamLoader]:
        return [loader(mixture(tmp_path, hub), packing, rank, world) for rank in range(world)]

    unbroken = [plain(islice(each, 50)) for each in ranks()]
    assert unbroken[0] != unbroken[-1] or world == 1
    for stop in (*range(5), 29, 40):
        state = through_a_file(stopped(ranks(), stop), tmp_path)
        for rank, again in enumerate(ranks()):
            again.load_state_dict(state)
            assert plain(islice(again, 50 - stop)) == unbroken[rank][stop:]


@pytest.mark.parametrize("workers", [1, 2])
def test_after_any_stop_workers_go_on_too(workers: int, tmp_path: Path) -> None:
    def made() -> StreamLoader:
        return loader(mixture(tmp_path, hub=True), workers=workers)

    unbroken = plain(islice(made(), 40))
    for stop in (1, 20):
        again = made()
        again.load_state_dict(through_a_file(stopped([made()], stop), tmp_path))
        assert plain(islice(again, 40 - stop)) == unbroken[stop:]


def test_a_stream_that_went_on_can_stop_again(tmp_path: Path) -> None:
    unbroken = plain(islice(loader(mixture(tmp_path)), 60))
    again = loader(mixture(tmp_path))
    for stop, done in ((3, 3), (1, 4), (17, 21), (0, 21), (9, 30)):
        state = through_a_file(stopped([again], stop), tmp_path)
        assert state["done"] == done
        again = loader(mixture(tmp_path))
        again.load_state_dict(state)
        assert plain(islice(again, 20)) == unbroken[done : done + 20]
        again.load_state_dict(state)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_new_epoch_goes_on_with_the_batch_that_was_not_used(workers: int, tmp_path: Path) -> None:
    unbroken = plain(islice(loader(mixture(tmp_path), workers=workers), 30))
    made, seen = loader(mixture(tmp_path), workers=workers), list[Any]()
    for _ in range(3):
        *used, _ = islice(made, 10)
        seen += plain(used)
    assert seen == unbroken[:27]


@pytest.mark.parametrize(("early", "in_hand"), [(True, 0), (True, 1), (False, 0), (False, 1)])
def test_batches_that_were_given_and_not_used_come_again(early: bool, in_hand: int, tmp_path: Path) -> None:
    unbroken = plain(islice(loader(mixture(tmp_path)), 40))
    for given in (0, 1, 2, 3, 11, 24):
        made = loader(mixture(tmp_path))
        made.early = early
        walk = iter(made)
        for _ in range(given):
            next(walk)
        made.in_hand = in_hand
        state = made.state_dict()
        assert state["done"] == max(0, given - early - in_hand)
        made.load_state_dict(state)
        assert plain(islice(made, 5)) == unbroken[state["done"] : state["done"] + 5]


def test_a_place_is_small_and_costs_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Going on tokenises one chunk again, and what fills the batches that were begun."""
    state = stopped([loader(mixture(tmp_path))], 500)
    (((stand,),)) = state["stands"]
    assert sum(stand["place"]["lengths"]) <= 4 * 96 and stand["since"] < 10
    tokenised, encode = [], Encoder.__call__
    monkeypatch.setattr(Encoder, "__call__", lambda *given: tokenised.extend(given[1]) or encode(*given))
    again = loader(mixture(tmp_path))
    again.load_state_dict(state)
    next(iter(again))
    assert 0 < len(tokenised) <= 5 * flow.CHUNK < 500


def rank_of_two(rank: int, folder: Path, inflows: list[Inflow], stop: int) -> None:
    """One of two processes: stops, and writes what it would put into a checkpoint."""
    where = f"file://{folder}/meeting"
    torch.distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=2)
    made = loader(inflows, rank=rank, world=2)
    list(islice(made, stop + 1))
    torch.save(made.state_dict(), folder / f"state-{rank}")
    torch.distributed.destroy_process_group()


def test_every_rank_writes_the_places_of_all(tmp_path: Path) -> None:
    """A checkpoint is written by one process, and read by all."""
    fork = multiprocessing.get_context("fork")
    inflows = mixture(tmp_path)
    ranks = [fork.Process(target=rank_of_two, args=(rank, tmp_path, inflows, 17)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [0, 0]
    states = [torch.load(tmp_path / f"state-{rank}", weights_only=True) for rank in (0, 1)]
    assert str(states[0]) == str(states[1])
    for rank in (0, 1):
        unbroken, again = (loader(inflows, rank=rank, world=2) for _ in range(2))
        again.load_state_dict(states[0])
        assert plain(islice(again, 10)) == plain(islice(unbroken, 17, 27))


@pytest.mark.parametrize("changed", [{"world": 2}, {"workers": 3}, {"rank": 1, "world": 3}])
def test_a_place_of_other_readers_is_refused_with_both_numbers(changed: dict[str, int], tmp_path: Path) -> None:
    state = stopped([loader(mixture(tmp_path))], 2)
    here = {"processes": changed.get("world", 1), "num_workers": changed.get("workers", 1), "batch_size": 2}
    now = ", ".join(f"{name}={value}" for name, value in here.items())
    with pytest.raises(BadData, match=f"with processes=1, num_workers=1, batch_size=2, and this run has {now}\\."):
        loader(mixture(tmp_path), **changed).load_state_dict(state)


def test_inflows_are_drawn_by_weight(tmp_path: Path) -> None:
    share = Share(loader(mixture(tmp_path)).stream.flow, 0, 1)
    drawn = []
    for share.chunk in range(200):
        drawn += share.drawn()
    few = [row["messages"] for row in (*ROWS[250:267], *WRONG)]
    assert np.mean([row["messages"] in few for row in drawn]) == pytest.approx(1 / 4, abs=0.04)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_fault_in_the_stream_is_told_as_it_is(workers: int, tmp_path: Path) -> None:
    """Without the traceback of the worker it happened in."""
    useless = Inflow("useless", Files((written(tmp_path / "useless.jsonl", WRONG[:1] * 30),)), 1.0)
    few = mixture(tmp_path)[1:]
    with pytest.raises(BadData, match=r"^The last \d+ rows .* no usable row among them \(11 no messages\)\.$"):
        next(iter(loader([useless], workers=workers)))
    with pytest.raises(BadData, match=r"^few has too few rows to stream to \d+ processes\.$"):
        next(iter(loader(few, rank=39, world=40, workers=workers)))


def test_rows_that_were_no_use_are_counted_also_over_a_stop(tmp_path: Path) -> None:
    made = loader(mixture(tmp_path))
    state = stopped([made], 200)
    again = loader(mixture(tmp_path))
    again.load_state_dict(state)
    assert again.seen == made.seen
    rows, dropped = made.seen
    assert rows % flow.CHUNK == 0 and dropped.keys() == {"no messages", "unknown role 'robot'"}
    stopped([again], 200)
    unbroken = loader(mixture(tmp_path))
    stopped([unbroken], 400)
    assert again.seen == unbroken.seen != (rows, dropped)


def module(folder: Path, **options: Any) -> TuluDataModule:
    toy_tokenizer().save_pretrained(folder / "tokenizer")
    paths = {"many": written(folder / "a.jsonl", ROWS), "few": written(folder / "few.jsonl", ROWS[:40] + WRONG)}
    given = {"path": paths, "tokenizer": str(folder / "tokenizer"), "cache_dir": str(folder / "cache")}
    sizes = {"max_length": 96, "batch_size": 2, "validation_size": 20, "streaming": True}
    return TuluDataModule(**{"template": Turns} | given | sizes | options)


class Model(L.LightningModule):
    """Its weight is a record of all that it was shown, and in which order."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.shown: list[Any] = []

    def corrupt(self, canvas: Any) -> Any:
        return canvas

    def training_step(self, canvas: Any, batch_idx: int) -> torch.Tensor:
        self.shown.append(canvas.ids.tolist())
        return ((self.weight - canvas.ids.double().sin().sum()) ** 2).sum()

    def validation_step(self, canvas: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1)


def fitted(folder: Path, steps: int, resume: Path | None = None, workers: int = 0, **options: Any) -> Model:
    model = Model()
    trainer = L.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, num_sanity_val_steps=0,
        **{"limit_val_batches": 1, "val_check_interval": 7} | options,
    )  # fmt: skip
    trainer.fit(model, datamodule=module(folder, num_workers=workers), ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(folder / f"{steps}.ckpt")
    return model


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "options",
    [{}, {"accumulate_grad_batches": 2}, {"limit_train_batches": 5, "val_check_interval": 1.0, "max_epochs": -1}],
    ids=["one epoch", "accumulated", "several epochs"],
)
def test_a_run_that_was_stopped_is_the_run_that_was_not(workers: int, options: dict[str, Any], tmp_path: Path) -> None:
    unbroken = fitted(tmp_path, 20, workers=workers, **options)
    begun = fitted(tmp_path, 11, workers=workers, **options)
    assert begun.shown == unbroken.shown[: len(begun.shown)]
    ended = fitted(tmp_path, 20, tmp_path / "11.ckpt", workers, **options)
    assert begun.shown + ended.shown == unbroken.shown
    assert torch.equal(ended.weight, unbroken.weight)
    assert len({str(batch) for batch in unbroken.shown}) == len(unbroken.shown)


def test_the_rows_of_a_stream_that_were_dropped_are_told_in_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted(tmp_path, 40)
    told = capsys.readouterr().out
    assert " rows read" in told and "rows dropped: no messages" in told and "rows dropped: unknown role 'robot'" in told
    assert "train: 0 rows" not in told and "other reasons" not in told


@pytest.mark.parametrize("workers", [0, 2])
def test_a_wrong_row_stops_a_stream_that_is_to_raise(workers: int, tmp_path: Path) -> None:
    data = module(tmp_path, on_bad_row="raise", num_workers=workers)
    with pytest.raises(BadData, match=r"^\S+few\.jsonl, line 4[12], cannot be trained on: (no messages|unknown role)"):
        list(islice(data.train_dataloader(), 200))
