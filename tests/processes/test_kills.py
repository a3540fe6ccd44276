"""A run that is killed again and again is, in the end, the run that was never touched: bit for bit.

Real processes are killed with SIGKILL, at moments drawn at random while they train, and started again with the same
command. Weights, optimizer and every logged number must be those of an undisturbed run.
"""

from __future__ import annotations

import csv
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conf.configurations import TINY, TINY_TOY, files
from tests.processes.nursery import Nursery

LIVES = (
    *(each for each in TINY if not each.startswith("trainer.max_steps")),
    "callbacks.progress=null",
    "callbacks.samples.score=4",
    "callbacks.samples.prompts=1",
    "callbacks.samples.lengths=[4]",
    "callbacks.last.every_n_steps=3",
    "trainer.log_every_n_steps=1",
    "trainer.val_check_interval=25",
    "trainer.max_epochs=99",
    "data.num_workers=0",
)
COMMON = (*LIVES, *TINY_TOY)
ALONE = (*COMMON, "trainer.max_steps=120", "data.batch_size=4", "data.train_size=60")
TOGETHER = (
    *COMMON,
    "trainer=ddp_cpu",
    "trainer.max_epochs=99",
    "trainer.max_steps=60",
    "data.batch_size=4",
    "data.train_size=120",
)


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    started = Nursery(tmp_path)
    yield started
    started.close()


def state(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def curves(folder: Path) -> list[dict[str, str]]:
    """Every row of metrics.csv without what a clock decides."""
    with (folder / "csv" / "metrics.csv").open(newline="") as file:
        rows = [{name: cell for name, cell in row.items() if "second" not in name} for row in csv.DictReader(file)]
    return [row for row in rows if {name for name, cell in row.items() if cell} - {"step", "epoch"}]


def killed_often(nursery: Nursery, arguments: tuple[str, ...], kills: int, seed: int = 0) -> Path:
    """The folder of a run that was killed so many times while it trained, and then left in peace.

    Each life lasts until it has written a checkpoint, and then for a moment drawn at random.
    """
    drawn, folder = random.Random(seed), nursery.folder / "runs" / "killed"
    last = folder / "checkpoints" / "last.ckpt"
    for _ in range(kills):
        before, pid, ended = written(last), nursery.start(*arguments, "run=killed"), None
        while ended is None and written(last) == before:
            ended = nursery.wait(pid, 0.002)
        assert ended is None, nursery.said
        time.sleep(drawn.uniform(0, 0.12))
        nursery.kill(pid)
    assert nursery.run(*arguments, "run=killed") == 0, nursery.said
    return folder


def written(file: Path) -> int:
    """When a file was written last; 0 while there is none."""
    return file.stat().st_mtime_ns if file.exists() else 0


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def check_nothing_happened(nursery: Nursery, arguments: tuple[str, ...], kills: int) -> None:
    assert nursery.run(*arguments, "run=whole") == 0, nursery.said
    whole, killed = nursery.folder / "runs" / "whole", killed_often(nursery, arguments, kills)
    assert nursery.said.count("Going on from") == kills
    one, other = state(whole), state(killed)
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "current_model_state"):
        assert same(one.get(part), other.get(part)), part
    assert curves(killed) == curves(whole)
    assert (killed / "samples.csv").read_text() == (whole / "samples.csv").read_text()
    assert not [*killed.rglob("*.partial")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "kills"),
    [
        (("trainer.max_epochs=-1",), 3),
        (
            (
                "data.packing=true",
                "trainer.max_epochs=99",
                "trainer.accumulate_grad_batches=2",
                "callbacks=ema",
                "data.num_workers=2",
            ),
            2,
        ),
    ],
    ids=["plain", "with epochs, packed, accumulated, averaged, with workers"],
)
def test_kills_change_nothing(nursery: Nursery, options: tuple[str, ...], kills: int) -> None:
    check_nothing_happened(nursery, (*ALONE, *options), kills)


@pytest.mark.slow
def test_kills_of_two_processes_change_nothing(nursery: Nursery) -> None:
    check_nothing_happened(nursery, TOGETHER, kills=2)


@pytest.mark.slow
def test_kills_change_nothing_on_a_stream(nursery: Nursery) -> None:
    """Three workers read files over and over; what they had read and packed ahead is not in the checkpoint."""
    stream = ("data.streaming=true", "data.validation_size=8", "data.num_workers=3", "data.max_length=24")
    arguments = (*LIVES, *files(nursery.folder), *stream, "trainer.max_steps=60")
    check_nothing_happened(nursery, arguments, kills=2)
