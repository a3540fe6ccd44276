"""A job: one composed configuration, the processes that work on it, and what it came to.

Hydra composes in one process only. Those that Lightning starts for a job, and the one that a job of a sweep gets for
itself, find their configuration in the environment; so nobody composes a second time, and all write into one folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dllm_lightning.result import RESULT, read_result, write_result

Main = Callable[..., Any]
Words = Callable[[BaseException], str | None]
"""What to tell the user of an error; None where it is no mistake of theirs."""
JOB = "DLLM_JOB"
SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]
STOPPED = (130, *(128 + signum for signum in SIGNALS), *(-signum for signum in (signal.SIGINT, *SIGNALS)))
"""Exit codes of a process that was asked to stop."""
_FREE = {"folder", "run", "resume", "threads", "debug", "typed", "logger"}
"""Parts of a configuration that do not decide what comes out."""


def received() -> DictConfig | None:
    """The configuration that this process was started for, if it was."""
    return from_text(os.environ[JOB]) if JOB in os.environ else None


@contextlib.contextmanager
def handed_on(cfg: DictConfig) -> Iterator[None]:
    """Meanwhile the processes that this one starts receive the configuration."""
    os.environ[JOB] = to_text(cfg)
    try:
        yield
    finally:
        del os.environ[JOB]


def to_text(cfg: DictConfig) -> str:
    """The configuration as JSON, nothing in it left to resolve."""
    return json.dumps(OmegaConf.to_container(cfg, resolve=True))


def from_text(text: str) -> DictConfig:
    return OmegaConf.create(json.loads(text))


def run_apart(cfg: DictConfig, module: str) -> int:
    """Runs `python -m module` for a configuration and returns its exit code (negative: the signal that killed it).

    Ctrl-C reaches both processes and is the other one's to answer; other requests to stop are handed on to it.
    """
    worker = subprocess.Popen([sys.executable, "-m", module], env={**os.environ, JOB: to_text(cfg)})

    def forward(signum: int, frame: FrameType | None) -> None:
        worker.send_signal(signum)

    usual = {signum: signal.signal(signum, forward) for signum in SIGNALS}
    try:
        while True:
            with contextlib.suppress(KeyboardInterrupt):
                return worker.wait()
    finally:
        for signum, handler in usual.items():
            signal.signal(signum, handler)


def attempt(main: Main, cfg: DictConfig, folder: Path, line_of: Words) -> None:
    """Runs a job; a failure is written into its folder before it is raised."""
    try:
        main(cfg)
    except Exception as error:
        why = line_of(error) or f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        write_result(folder, {"status": "failed", "why": why})
        raise


def of_sweep(main: Main, cfg: DictConfig, folder: Path, line_of: Words, apart: bool) -> dict[str, Any]:
    """The result of one job of a sweep: at once if it was done before, else in a process of its own, if that is wanted.

    Raises KeyboardInterrupt when the job was asked to stop: so is the sweep, then.
    """
    key, module = digest(cfg), getattr(sys.modules["__main__"].__spec__, "name", "")
    done = read_result(folder)
    if done.get("status") == "done" and done.get("config") == key:
        print(f"Done already: {folder}", flush=True)
        return done
    (folder / RESULT).unlink(missing_ok=True)
    if apart and module.startswith(f"{__package__}."):
        code = run_apart(cfg, module)
        result = read_result(folder) or {"status": "failed", "why": f"The process of this job ended with code {code}."}
        if code and (code in STOPPED or result["status"] == "stopped"):
            result["status"] = "stopped"
    else:
        with contextlib.suppress(Exception), handed_on(cfg):
            attempt(main, cfg, folder, line_of)
        result = read_result(folder) or {"status": "done"}
        if result["status"] == "failed":  # a process of its own says so itself
            print(result["why"], file=sys.stderr, flush=True)
    if int(os.environ.get("SLURM_PROCID", 0)) == 0:
        write_result(folder, result := result | {"config": key})
    if result["status"] == "stopped":
        raise KeyboardInterrupt
    return result


def digest(cfg: DictConfig) -> str:
    """Equal for configurations of which the same comes out."""
    parts = {name: value for name, value in json.loads(to_text(cfg)).items() if name not in _FREE}
    folder = json.dumps(str(cfg.get("folder")))[1:-1]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).replace(folder, "").encode()).hexdigest()[:16]
