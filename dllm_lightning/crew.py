"""Processes that torchrun or SLURM started: one of them composes the configuration and tells the others.

Left to themselves they would each compose their own, in folders of different seconds.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from omegaconf import DictConfig

from dllm_lightning.jobs import from_text, to_text

PATIENCE = timedelta(minutes=10)
MINUTE = timedelta(minutes=1)
MOMENT = timedelta(seconds=10)


class Crew:
    """Processes that torchrun or SLURM started, one of which composes the configuration and tells the others."""

    def __init__(self, rank: int, size: int, host: str, port: int, hosted: bool) -> None:
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        self.rank, self.size = rank, size
        self.key = f"dllm/job/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
        self.store = TCPStore(host, port, is_master=rank == 0 and not hosted, wait_for_workers=False)
        self.told = False

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """The others wait until there is a job, and go home when this is over without one.

        Rank zero stays until they have heard so, for the store may end with it, and torchrun ends it with any of them.
        """
        try:
            yield
        except BaseException:
            self.store.set(f"{self.key}/failed", "1")
            self.tell(None)
            self.stay_until("heard", MINUTE)
            self.stay_until("left", MOMENT)
            raise
        self.tell(None)
        self.stay_until("heard", MINUTE)

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """What has failed on rank zero too is told there, and only there."""
        try:
            yield
        except Exception:
            with contextlib.suppress(RuntimeError):
                self.store.wait([f"{self.key}/failed"], MOMENT)
                sys.exit(2)
            raise
        finally:
            self.say("left")

    def led(self, main: Callable[..., Any]) -> Callable[..., Any]:
        """`main`, but the others are told first."""

        @functools.wraps(main)
        def first(cfg: DictConfig, **texts: str) -> Any:
            self.tell(cfg)
            return main(cfg, **texts)

        return first

    @classmethod
    def present(cls) -> Crew | None:
        """The crew that this process belongs to."""
        if "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1:
            hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
            rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
            return cls(rank, size, os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), hosted)
        if int(os.environ.get("SLURM_NTASKS", 1)) > 1 and "SLURM_PROCID" in os.environ:
            from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

            if SLURMEnvironment.detect():
                here = SLURMEnvironment()
                rank, size = here.global_rank(), here.world_size()
                return cls(rank, size, here.main_address, here.main_port + 1, hosted=False)
        return None

    def tell(self, cfg: DictConfig | None) -> None:
        """Rank zero: this is the job; None: there is none. The first word counts."""
        if not self.told:
            self.told = True
            self.store.set(self.key, "" if cfg is None else to_text(cfg))

    def listen(self) -> DictConfig:
        """The others: the job, as soon as rank zero has composed it. Leaves the program if there is none."""
        self.store.wait([self.key], PATIENCE)
        text = self.store.get(self.key).decode()
        self.say("heard")
        if not text:
            self.say("left")
            sys.exit(2)  # rank zero has said why
        return from_text(text)

    def say(self, word: str) -> None:
        """The others: what rank zero may be waiting for, if it still is."""
        with contextlib.suppress(RuntimeError):
            self.store.set(f"{self.key}/{word}/{self.rank}", "1")

    def stay_until(self, word: str, patience: timedelta) -> None:
        """Rank zero: until all others have said the word, though not for ever."""
        with contextlib.suppress(RuntimeError):
            self.store.wait([f"{self.key}/{word}/{rank}" for rank in range(1, self.size)], patience)
