"""Several nodes: the scripts of experiments/multi_node, run by a real shell as they lie there.

The nodes of torchrun are two addresses of this machine. SLURM is two programs of a few lines: `srun` starts a task per
node with the variables that SLURM sets, and `scontrol` writes down what it was asked.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dllm_lightning.crew import Crew
from tests.processes.nursery import ROOT, Nursery
from tests.processes.test_kills import written
from tests.processes.test_ranks import FIFTY, column

SCRIPTS = ROOT / "experiments" / "multi_node"
STEPS = tuple(each for each in FIFTY if each != "trainer=cpu")
"""Fifty steps; the script says which trainer."""
SRUN = """#!/usr/bin/env bash
echo "$@" >srun.txt
while [[ $1 == --* ]]; do shift; done
export SLURM_NTASKS=$SLURM_NNODES SLURM_LOCALID=0
trap 'kill -USR1 $(jobs -p)' USR1
for ((task = 0; task < SLURM_NTASKS; task++)); do SLURM_PROCID=$task SLURM_NODEID=$task "$@" & done
code=0
while [ -n "$(jobs -p)" ]; do wait -n || code=$?; done
exit "$code"
"""
PYTHON = """#!/usr/bin/env bash
trap 'echo asked >>"$4.txt"; exit 9' TERM
echo "$@" >"$4.txt"
while [ "$4" != "${FAILING:-}" ] || [ ! -s ./--node-rank=0.txt ]; do sleep 0.01; done
exit 3
"""
"""Stands in for python, and so for torchrun: one that works until it is asked to stop, or fails."""
SCONTROL = """#!/usr/bin/env bash
echo "$@" >>scontrol.txt
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One process with all the eight rows that several read in a step."""
    nursery = Nursery(tmp_path_factory.mktemp("alone"))
    assert nursery.run("experiment=quickstart", *FIFTY, "data.batch_size=8", "run=alone") == 0, nursery.said
    nursery.close()
    yield nursery.folder / "runs" / "alone"


class Shell:
    """Runs a script in `folder`, which keeps what it says in said.txt."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable, **variables}

    def start(self, script: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / "said.txt").open("wb") as said:
            command = ["bash", str(SCRIPTS / script), *arguments]
            return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=said, stderr=said)

    def run(self, script: str, *arguments: str) -> int:
        return self.start(script, *arguments).wait(200)

    def stopped(self, run: Path, signum: int, script: str, *arguments: str) -> int:
        """The exit code of a run that gets a signal once it has saved a step."""
        started = self.start(script, *arguments)
        while not written(run / "checkpoints" / "last.ckpt"):
            time.sleep(0.01)
            assert started.poll() is None, self.said
        started.send_signal(signum)
        return started.wait(100)

    @property
    def said(self) -> str:
        return (self.folder / "said.txt").read_text(errors="replace")


@pytest.fixture
def slurm(tmp_path: Path) -> Shell:
    """What a job finds that `sbatch --nodes=2 --ntasks-per-node=1 --job-name=mine` has started."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    folder = tmp_path / "submitted"
    folder.mkdir()
    return Shell(
        folder,
        PATH=f"{programs}:{os.environ['PATH']}",
        GLOO_SOCKET_IFNAME="lo",
        SLURM_JOB_NAME="mine",
        SLURM_JOB_ID=str(free_port(15100) - 15000),  # from which Lightning makes its port
        SLURM_NNODES="2",
        SLURM_NTASKS_PER_NODE="1",
        SLURM_CPUS_PER_TASK="1",
        SLURM_NODELIST="127.0.0.[1-2]",
    )


def free_port(start: int) -> int:
    """The first port from there on that is free, as is the one after it."""
    for port in range(start, 2**16):
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("", port))
                other.bind(("", port + 1))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


def check_same_losses(run: Path, alone: Path) -> None:
    expected, found = column(alone, "train/loss"), column(run, "train/loss")
    assert expected.keys() == found.keys() == {*range(50)}
    assert max(abs(found[step] / expected[step] - 1) for step in expected) < 1e-5
    assert column(run, "val/nelbo")[49] == pytest.approx(column(alone, "val/nelbo")[49], rel=1e-5)


@pytest.mark.slow
def test_two_nodes_of_two_processes_are_as_one_process(tmp_path: Path, alone: Path) -> None:
    """Each process reads two of the eight rows of a step; all of them share one folder."""
    shell, run = Shell(tmp_path, PORT=str(free_port(29600))), tmp_path / "runs" / "nodes"
    assert shell.run("two_nodes.sh", *STEPS, "data.batch_size=2", "run=nodes") == 0, shell.said
    assert shell.said.count("─ done ") == 1
    check_same_losses(run, alone)
    assert {entry.name for entry in run.iterdir()} == {entry.name for entry in alone.iterdir()}
    assert {entry.name for entry in tmp_path.iterdir()} == {"runs", "said.txt"}
    assert [*run.parent.iterdir()] == [run]


@pytest.mark.parametrize(("failing", "code"), [("", 128 + signal.SIGTERM), ("--node-rank=1", 3)])
def test_what_ends_one_node_ends_the_other(tmp_path: Path, failing: str, code: int) -> None:
    """A request to stop reaches both, and once; a node that fails takes the other with it."""
    python, files = tmp_path / "python", [tmp_path / f"--node-rank={rank}.txt" for rank in (0, 1)]
    python.write_text(PYTHON)
    python.chmod(0o755)
    started = Shell(tmp_path, PYTHON=str(python), FAILING=failing).start("two_nodes.sh", "seed=3")
    if not failing:
        while not all(map(written, files)):
            assert started.poll() is None, "a node that nobody asked has ended"
            time.sleep(0.01)
        started.send_signal(signal.SIGTERM)
    assert started.wait(20) == code
    said = [file.read_text().splitlines() for file in files]
    assert [lines[1:] for lines in said] == [["asked"], [] if failing else ["asked"]]
    for rank, (line, *_) in enumerate(said):
        assert {f"--local-addr=127.0.0.{rank + 1}", "--master-addr=127.0.0.1", "--nnodes=2"} <= {*line.split()}
        assert line.endswith(" seed=3")


@pytest.mark.slow
def test_a_slurm_job_saves_before_its_time_is_up_is_put_back_and_goes_on(slurm: Shell, alone: Path) -> None:
    """On two nodes with a task each, which share one folder."""
    run = slurm.folder / "runs" / "mine"
    arguments = (*STEPS, "experiment=quickstart", "trainer.accelerator=cpu", "data.batch_size=4")
    assert slurm.stopped(run, signal.SIGUSR1, "slurm.sbatch", *arguments) == 128 + signal.SIGUSR1
    assert (slurm.folder / "scontrol.txt").read_text() == f"requeue {slurm.environment['SLURM_JOB_ID']}\n"
    assert json.loads((run / "result.json").read_text())["status"] == "stopped"
    assert slurm.run("slurm.sbatch", *arguments) == 0, slurm.said
    assert slurm.said.count("Going on from") == slurm.said.count("─ done ") == 1
    check_same_losses(run, alone)
    assert [*run.parent.iterdir()] == [run]


@pytest.mark.slow
def test_a_slurm_job_that_is_wrong_says_so_once_and_leaves_nothing(slurm: Shell) -> None:
    arguments = (*STEPS, "experiment=quickstart", "trainer.accelerator=cpu", "optimizer.lr=-1")
    assert slurm.run("slurm.sbatch", *arguments) == 2
    (line,) = slurm.said.splitlines()
    assert "optimizer.lr=-1" in line and not (slurm.folder / "runs").exists()


def test_the_first_process_stays_until_the_last_has_heard_that_there_is_no_job() -> None:
    """Though that one comes late: it would look in vain for a process that has gone."""
    port, ended = free_port(29700), threading.Event()

    def lead() -> None:
        with contextlib.suppress(ValueError), Crew(0, 2, "127.0.0.1", port, hosted=False).waiting():
            raise ValueError("a mistake")
        ended.set()

    leading = threading.Thread(target=lead)
    leading.start()
    assert not ended.wait(0.5)
    with pytest.raises(SystemExit):
        Crew(1, 2, "127.0.0.1", port, hosted=False).listen()
    assert ended.wait(5)
    leading.join()


def test_the_slurm_script_asks_for_what_a_run_on_several_nodes_needs(tmp_path: Path) -> None:
    script = SCRIPTS / "slurm.sbatch"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=?(\S*)", script.read_text(), re.MULTILINE))
    assert asked["ntasks-per-node"] == asked["gpus-per-node"] and int(asked["nodes"]) > 1
    assert asked["signal"] == "USR1@120" and {"requeue", "time", "cpus-per-task"} <= asked.keys()
    assert asked["open-mode"] == "append" and "#SBATCH" not in script.read_text().partition("\nset -e")[2]
