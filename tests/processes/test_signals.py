"""A run that is asked to stop saves what it has, says where, and goes on from there."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes.nursery import Nursery
from tests.processes.test_kills import COMMON, curves, same, state, written

SHORT = (*COMMON, "trainer.max_steps=60", "data.train_size=60")


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    started = Nursery(tmp_path_factory.mktemp("signals"))
    yield started
    started.close()


def training(nursery: Nursery, name: str, *arguments: str, environment: dict[str, str] | None = None) -> int:
    """The process of a run that has begun to train."""
    last = nursery.folder / "runs" / name / "checkpoints" / "last.ckpt"
    pid, ended = nursery.start(*arguments, f"run={name}", environment=environment), None
    while ended is None and not written(last):
        ended = nursery.wait(pid, 0.01)
    assert ended is None, nursery.said
    return pid


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1], ids=lambda each: each.name)
@pytest.mark.parametrize("trainer", ["cpu", "ddp_cpu"])
def test_a_signal_saves_and_says_where_and_the_run_goes_on_as_if_nothing_had_happened(
    nursery: Nursery, signum: signal.Signals, trainer: str
) -> None:
    """Ctrl-C reaches every process, the others only the one that was started."""
    name, arguments = f"{trainer}-{signum.name}", (*SHORT, f"trainer={trainer}", "trainer.max_steps=60")
    pid = training(nursery, name, *arguments)
    (os.killpg if signum == signal.SIGINT else os.kill)(pid, signum)
    assert nursery.wait(pid) == 128 + signum
    folder = nursery.folder / "runs" / name
    stopped = json.loads((folder / "result.json").read_text())
    assert stopped["status"] == "stopped" and 0 < stopped["steps"] == state(folder)["global_step"] < 60
    said = f"Saved step {stopped['steps']} as {nursery.folder}/runs/{name}/checkpoints/last.ckpt"
    assert said in nursery.said and f"run={name}" in nursery.said
    assert nursery.run(*arguments, f"run={name}") == 0
    assert json.loads((folder / "result.json").read_text())["status"] == "done"
    whole = nursery.folder / "runs" / f"whole-{trainer}"
    if not whole.exists():
        assert nursery.run(*arguments, f"run={whole.name}") == 0
    assert same(state(folder)["state_dict"], state(whole)["state_dict"])
    assert curves(folder) == curves(whole)


@pytest.mark.slow
def test_slurm_is_asked_to_run_the_job_again(nursery: Nursery, tmp_path: Path) -> None:
    """After SIGUSR1, which it sends before time is up; by the command that is on its machines."""
    asked = tmp_path / "asked.txt"
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >>{asked}\n')
    (tmp_path / "scontrol").chmod(0o755)
    environment = {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "1", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    pid = training(nursery, "slurm", *SHORT, environment=environment)
    os.kill(pid, signal.SIGUSR1)
    assert nursery.wait(pid) == 128 + signal.SIGUSR1
    assert asked.read_text() == "requeue 77\n"


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(nursery: Nursery) -> None:
    """Whether it was cut short, or a byte of it has changed."""
    assert nursery.run(*SHORT, "run=damaged") == 0
    folder = nursery.folder / "runs" / "damaged"
    last, previous = (folder / "checkpoints" / f"{name}.ckpt" for name in ("last", "previous"))
    whole = state(folder)
    for spoil in (truncate, flip):
        before = len(nursery.said)
        spoil(last)
        assert nursery.run(*SHORT, "run=damaged") == 0
        said = nursery.said[before:]
        assert f"{last}' is" in said and "Taking the one before." in said and f"Going on from {previous}" in said
        assert same(state(folder)["state_dict"], whole["state_dict"])
    truncate(last)
    truncate(previous)
    assert nursery.run(*SHORT, "run=damaged") == 2
    assert "resume=null starts anew" in nursery.said


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    """Changes one byte in the middle of the weights."""
    content: Any = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_the_older_checkpoints_stay(nursery: Nursery) -> None:
    """A limit on the size of files is what a process can be given of a full disk without being root."""
    assert nursery.run(*SHORT, "trainer.max_steps=20", "run=full", "optimizer.decay=constant") == 0
    folder = nursery.folder / "runs" / "full"
    before = state(folder)
    (nursery.folder / "said.txt").write_text("")  # the limit is one for what is said, too
    size = (folder / "checkpoints" / "last.ckpt").stat().st_size
    arguments = (*SHORT, "run=full", "optimizer.decay=constant")
    assert nursery.wait(nursery.start(*arguments, limit=size // 2)) == 2
    told = nursery.said.strip().splitlines()[-1]
    assert "last.ckpt could not be written (File too large" in told and "are whole" in told
    assert state(folder)["global_step"] == before["global_step"] == 20
    assert not [*folder.rglob("*.partial")]
    assert nursery.run(*arguments) == 0
    assert state(folder)["global_step"] == 60
