"""Starts runs as real processes without waiting for their imports: they are forked from one that has done them.

As a program it reads a command per line, forks, and in the fork runs `python -m dllm_lightning.train` with it, in a
process group of its own. `Nursery` is the other end, for tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Nursery:
    """Runs of `dllm_lightning.train` in `folder`, each a process group that can be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
        self.server = subprocess.Popen(
            [sys.executable, __file__], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def start(self, *arguments: str, environment: dict[str, str] | None = None, limit: int | None = None) -> int:
        """The number of the process that a run has been started in; `limit` is the largest file it may write."""
        return int(self._ask("start", str(self.folder), environment or {}, limit, *arguments))

    def wait(self, pid: int, seconds: float = 600) -> int | None:
        """Its exit code (negative: the signal that killed it), or None if it still runs after so long."""
        code = self._ask("wait", str(pid), str(seconds))
        return None if code == "None" else int(code)

    def kill(self, pid: int) -> None:
        """SIGKILL to the run and every process it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        self.wait(pid)

    def run(self, *arguments: str) -> int | None:
        return self.wait(self.start(*arguments))

    @property
    def said(self) -> str:
        """What all runs have printed, so far."""
        return (self.folder / "said.txt").read_text(errors="replace")

    def close(self) -> None:
        self.server.stdin.close()  # type: ignore[union-attr]
        self.server.wait(60)

    def _ask(self, *words: Any) -> str:
        server: Any = self.server
        server.stdin.write(json.dumps(words) + "\n")
        server.stdin.flush()
        return str(server.stdout.readline().strip())


def serve() -> None:
    """Answers one request per line."""
    import lightning
    import torch

    import dllm_lightning.assemble
    import dllm_lightning.callbacks
    import dllm_lightning.data
    import dllm_lightning.trainer

    torch.set_num_threads(1)
    assert lightning and dllm_lightning and threading.active_count() == 1  # what is forked must stand alone
    for line in sys.stdin:
        word, *rest = json.loads(line)
        print(fork(*rest) if word == "start" else wait(int(rest[0]), float(rest[1])), flush=True)


def fork(folder: str, environment: dict[str, str], limit: int | None, *arguments: str) -> int:
    if pid := os.fork():
        return pid
    os.setsid()
    os.chdir(folder)
    os.environ.update(environment)
    if limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    said = os.open("said.txt", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(said, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["train", *arguments]
    code: Any = 1
    try:
        runpy.run_module("dllm_lightning.train", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)


def wait(pid: int, seconds: float) -> int | None:
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            return None
        time.sleep(0.005)


if __name__ == "__main__":
    serve()
