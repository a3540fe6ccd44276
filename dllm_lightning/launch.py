"""How an entry point starts: it finds the configuration, hands it to `main`, and tells mistakes in one sentence.

Hydra composes the configuration and runs sweeps. Its messages, and our own, end as one line on stderr and exit code 2;
DLLM_DEBUG=1 shows the traceback instead. Nothing heavy is imported here, so that asking for help costs nothing.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from dllm_lightning.mistakes import sentence

Main = Callable[..., Any]


def conf_dir() -> Path:
    """The configuration: inside the package where that is an installed wheel, else at the top of the checkout."""
    here = Path(__file__).resolve().parent
    packaged = here / "conf"
    return packaged if packaged.is_dir() else here.parent / "conf"


def launch(main: Main, config_name: str, verbatim: Sequence[str] = ()) -> None:
    """Runs `main(cfg)` with the configuration `config_name` and the overrides on the command line.

    Keys in `verbatim` never meet Hydra's grammar: `prompt=a = {b}, ${c}` reaches `main` as the keyword argument
    `prompt`, character for character. Only those given are passed.
    """
    overrides, texts = split(sys.argv[1:], verbatim)
    sys.argv[1:] = overrides = [quoted(argument) for argument in overrides]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises, and the sentence is made here
    Folders.made.clear()
    stopped = []  # jobs of a sweep

    def told(error: Exception) -> str | None:
        return None if os.environ.get("DLLM_DEBUG") else sentence(error, conf_dir(), config_name, overrides)

    @functools.wraps(main)
    def job(cfg: DictConfig) -> Any:
        try:
            return main(cfg, **texts)
        except Exception as error:
            if (line := told(error)) is None:
                raise
            this = HydraConfig.get()
            if this.mode != RunMode.MULTIRUN:
                leave(line)
            stopped.append(this.job.num)  # the other jobs still run
            print(f"Job {this.job.num}: {line}", file=sys.stderr, flush=True)
            discard(folder := Path(this.runtime.output_dir), folder)
            return float("nan")  # no value, to a sweeper that waits for one

    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config_name)(job)()
        if stopped:
            leave(f"{len(stopped)} of the jobs did not run: {', '.join(map(str, stopped))}.")
    except BrokenPipeError:  # the reader of our output has gone (| head): so do we
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if (line := told(error)) is None:
            raise
        leave(line)


def leave(line: str) -> None:
    """Ends the program with one line on stderr and exit code 2, and without a folder for what has not begun."""
    print(line, file=sys.stderr)
    for folder, first in Folders.made.items():
        discard(folder, first)
    sys.exit(2)


class Folders(Callback):
    """Hydra calls it before it makes the folder of a run or a sweep: `made` says which folder, and what it lies in that
    was not there before."""

    made: ClassVar[dict[Path, Path]] = {}

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        self.note(Path(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        self.note(Path(config.hydra.sweep.dir))

    def note(self, folder: Path) -> None:
        """Keeps a folder that does not exist yet, with the outermost one that will be made for it."""
        folder = folder.absolute()
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        if missing:
            self.made[folder] = missing[-1]


def discard(folder: Path, first: Path) -> None:
    """Removes a folder in which no file lies but Hydra's notes, and the empty ones around it up to `first`."""
    files = (file.relative_to(folder).parts[0] for file in folder.rglob("*") if file.is_file())
    if {*files} - {".hydra", "multirun.yaml"}:
        return
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # one that is not empty stays
        while folder != first:
            folder = folder.parent
            folder.rmdir()


def split(arguments: Sequence[str], verbatim: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The arguments for Hydra, and the values of the verbatim keys."""
    rest, texts = [], {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and key in verbatim:
            texts[key] = value
        else:
            rest.append(argument)
    return rest, texts


def quoted(argument: str) -> str:
    """A plain value with another = in it, which Hydra's grammar has no place for (epoch=3-step=200.ckpt), in quotes."""
    key, _, value = argument.partition("=")
    plain = re.fullmatch(r"""[^'"\[\](){},\\]*=[^'"\[\](){},\\]*""", value)
    return f"{key}='{value}'" if plain else argument
