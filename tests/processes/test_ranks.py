"""Several processes train as one would on all their rows, are started from one command line, and share one folder."""

from __future__ import annotations

import csv
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from tests.conf.configurations import TINY, TINY_TOY
from tests.processes.nursery import ROOT, Nursery
from tests.processes.test_kills import COMMON

UNEVEN = (*COMMON, "data.turns=3", "data.level=3", "data.max_length=160", "callbacks.samples.prompts=0")
"""Answers of very different lengths, not sorted by length."""
FIFTY = (*UNEVEN, "trainer.max_steps=50", "trainer.val_check_interval=50", "data.packing=true", "data.train_size=2000")
WAYS = {
    "one with accumulation": ("trainer=cpu", "data.batch_size=4", "trainer.accumulate_grad_batches=2"),
    "two that are forked": ("trainer=ddp_cpu", "data.batch_size=4"),
    "two that are started": ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=4"),
    "two that share the weights": (
        *("trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=4"),
        *("trainer.precision=32-true", "trainer.strategy.process_group_backend=gloo"),
    ),
}


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    started = Nursery(tmp_path_factory.mktemp("ranks"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def alone(nursery: Nursery) -> Path:
    """One process with eight rows a batch."""
    assert nursery.run(*FIFTY, "trainer=cpu", "data.batch_size=8", "run=alone") == 0, nursery.said
    return nursery.folder / "runs" / "alone"


def column(folder: Path, name: str) -> dict[int, float]:
    with (folder / "csv" / "metrics.csv").open(newline="") as file:
        return {int(row["step"]): float(row[name]) for row in csv.DictReader(file) if row.get(name)}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_every_loss_of_fifty_steps_is_that_of_one_process(nursery: Nursery, alone: Path, way: str) -> None:
    """With clipping on, and within 1e-5 of it."""
    name = way.replace(" ", "-")
    assert nursery.run(*FIFTY, *WAYS[way], f"run={name}") == 0, nursery.said
    folder = nursery.folder / "runs" / name
    expected, found = column(alone, "train/loss"), column(folder, "train/loss")
    assert expected.keys() == found.keys() == {*range(50)}
    worst = max(abs(found[step] / expected[step] - 1) for step in expected)
    assert worst < 1e-5
    assert column(folder, "val/nelbo")[49] == pytest.approx(column(alone, "val/nelbo")[49], rel=1e-5)
    assert {entry.name for entry in folder.iterdir()} == {entry.name for entry in alone.iterdir()}
    whole, parts = (
        torch.load(each / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for each in (alone, folder)
    )
    assert whole.keys() == parts.keys()
    assert all(torch.allclose(whole[key], parts[key], rtol=1e-3, atol=1e-5) for key in whole)


@pytest.mark.slow
def test_soft_tokens_and_hard_ones_are_those_of_one_process_too(nursery: Nursery) -> None:
    """Duo through its curriculum and after it, copied to two processes and shared out between them."""
    duo = (*FIFTY, "model=duo", "sampler.steps=2", "trainer.max_steps=12", "trainer.val_check_interval=12")
    assert nursery.run(*duo, "trainer=cpu", "data.batch_size=8", "run=duo") == 0, nursery.said
    expected = column(nursery.folder / "runs" / "duo", "train/loss")
    for way in ("two that are forked", "two that share the weights"):
        name = f"duo-{way.replace(' ', '-')}"
        assert nursery.run(*duo, *WAYS[way], f"run={name}") == 0, nursery.said
        found = column(nursery.folder / "runs" / name, "train/loss")
        assert expected.keys() == found.keys() == {*range(12)}
        assert max(abs(found[step] / expected[step] - 1) for step in expected) < 1e-5
    taus = column(nursery.folder / "runs" / "duo", "train/tau")
    assert taus[0] > taus[5] > taus[11] == pytest.approx(1e-3)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(nursery: Nursery) -> None:
    """Of the same rows in a batch: nothing but rounding tells the runs apart."""
    steady = (*FIFTY, "optimizer.decay=constant")
    assert nursery.run(*steady, "trainer=cpu", "data.batch_size=8", "run=steady") == 0
    assert nursery.run(*steady, "trainer=ddp_cpu", "data.batch_size=4", "trainer.max_steps=21", "run=moved") == 0
    assert nursery.run(*steady, "trainer=cpu", "data.batch_size=8", "run=moved") == 0
    expected, found = (column(nursery.folder / "runs" / name, "train/loss") for name in ("steady", "moved"))
    assert expected.keys() == found.keys()
    assert max(abs(found[step] / expected[step] - 1) for step in expected) < 1e-5


@pytest.mark.slow
def test_a_sweep_of_two_jobs_with_two_processes_each(tmp_path: Path) -> None:
    """From a real command line: a folder and a row for each, and nothing else in the folder it was typed in."""
    command = [sys.executable, "-m", "dllm_lightning.train", "-m", "noise.min_ratio=0.05,0.15"]
    options = (*TINY, *TINY_TOY, "trainer=ddp_cpu", "callbacks.progress=null", "run=sweep")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [*command, *options], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1500
    )
    assert ran.returncode == 0, ran.stderr
    sweep = tmp_path / "runs" / "sweeps" / "sweep"
    assert [entry.name for entry in tmp_path.iterdir()] == ["runs"]
    assert [entry.name for entry in (tmp_path / "runs").iterdir()] == ["sweeps"]
    jobs = {low: sweep / f"noise.min_ratio={low}" for low in ("0.05", "0.15")}
    assert {*sweep.iterdir()} == {
        *jobs.values(),
        *(sweep / name for name in ("multirun.yaml", "sweep.csv", "sweep.png")),
    }
    with (sweep / "sweep.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert sorted(row["noise.min_ratio"] for row in rows) == [*jobs]
    assert all(row["status"] == "done" and float(row["val/nelbo"]) > 0 for row in rows)
    for low, folder in jobs.items():
        recipe = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["recipe"]["config"]
        noise = OmegaConf.load(folder / ".hydra" / "config.yaml").noise
        assert recipe["noise"]["min_ratio"] == noise.min_ratio == float(low)
        assert sorted(entry.name for entry in folder.iterdir()) == [
            ".hydra",
            "checkpoints",
            "csv",
            "result.json",
            "samples.csv",
        ]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("torchrun", path=Path(sys.executable).parent), reason="there is no torchrun")
def test_processes_that_torchrun_starts_share_one_folder(tmp_path: Path) -> None:
    """Though each of them would name it after its own second."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    options = (
        *TINY,
        *TINY_TOY,
        "trainer=ddp",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
        "callbacks.progress=null",
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*torchrun, "-m", "dllm_lightning.train", *options]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1500)
    assert ran.returncode == 0, ran.stderr
    (day,) = (tmp_path / "runs").iterdir()
    (run,) = day.iterdir()
    assert (run / "checkpoints" / "last.ckpt").is_file() and ran.stdout.count("─ done ") == 1
