"""How an entry point starts: it finds the configuration, hands it to `main`, and tells mistakes in one sentence.

Hydra composes the configuration and runs sweeps. Its messages, and our own, end as one line on stderr and exit code 2;
debug=true, or DLLM_DEBUG=1, shows the traceback instead. Nothing heavy is imported here, so that asking for help costs
nothing.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dllm_lightning import jobs
from dllm_lightning.crew import Crew
from dllm_lightning.flags import check_arguments
from dllm_lightning.jobs import Main, Words
from dllm_lightning.mistakes import sentence
from dllm_lightning.sweep import SweepReport


def conf_dir() -> Path:
    """The configuration: inside the package where that is an installed wheel, else at the top of the checkout."""
    here = Path(__file__).resolve().parent
    packaged = here / "conf"
    return packaged if packaged.is_dir() else here.parent / "conf"


def launch(main: Main, config_name: str, verbatim: Sequence[str] = ()) -> None:
    """Runs `main(cfg)` with the configuration `config_name` and the overrides on the command line.

    Keys in `verbatim` never meet Hydra's grammar: `prompt=a = {b}, ${c}` reaches `main` as the keyword argument
    `prompt`, character for character. Only those given are passed. A process that was started for a job that is
    composed already runs it and asks nobody.
    """
    overrides, texts = split(sys.argv[1:], verbatim)
    if {"debug=true", "debug=True", "debug=1"} & {*overrides}:
        os.environ["DLLM_DEBUG"] = "1"  # though the configuration may never be composed

    def line_of(error: BaseException) -> str | None:
        return sentence(error, conf_dir(), config_name, overrides)

    with telling(line_of):
        check_arguments(overrides, sweeps=not verbatim)
        if (cfg := jobs.received()) is not None:
            quietly()
            if "LOCAL_RANK" in os.environ:  # one of several processes that train together
                main(cfg)
            else:
                jobs.attempt(main, cfg, Path(cfg.folder), line_of)
        elif (crew := Crew.present()) is None:
            compose(main, config_name, overrides, texts, line_of)
        elif crew.rank > 0:
            quietly()
            with jobs.handed_on(cfg := crew.listen()), crew.following():
                main(cfg)
        else:
            with crew.waiting(), telling(line_of):  # said before the others leave
                if {"-m", "--multirun"} & {*overrides}:
                    raise ValueError("A sweep starts the processes of its jobs by itself: leave torchrun or srun out.")
                compose(crew.led(main), config_name, overrides, texts, line_of)


def compose(main: Main, config_name: str, overrides: list[str], texts: dict[str, str], line_of: Words) -> None:
    """Lets Hydra compose the configuration, or those of a sweep, and runs `main` on each."""
    sys.argv[1:] = [quoted(argument) for argument in overrides]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises, and the sentence is made here
    Folders.made.clear()
    failed = []  # jobs of a sweep

    @functools.wraps(main)
    def job(cfg: DictConfig) -> Any:
        here = HydraConfig.get()
        if "debug" in cfg and cfg.debug is True:
            os.environ["DLLM_DEBUG"] = "1"  # for the other processes of this run too
        if here.mode != RunMode.MULTIRUN:
            with telling(line_of), jobs.handed_on(cfg):  # before Hydra has its say
                return main(cfg, **texts)
        folder = Path(here.runtime.output_dir)
        result = jobs.of_sweep(main, cfg, folder, line_of, apart="BasicLauncher" in here.launcher._target_)
        if result["status"] == "failed":
            failed.append(folder.name)
        return result.get("metrics", {}).get(
            OmegaConf.select(OmegaConf.create({"hydra": here}), "hydra.callbacks.report.metric")
        )

    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config_name)(job)()
    except KeyboardInterrupt:
        if SweepReport.interrupted is not None:
            SweepReport.interrupted()
        raise
    if failed:
        leave(f"{len(failed)} of the jobs failed: {', '.join(failed)}.")


@contextlib.contextmanager
def telling(line_of: Words) -> Iterator[None]:
    """Turns what ends a program into its exit code, and a mistake of the user's into one line."""
    try:
        yield
    except BrokenPipeError:  # the reader of our output has gone (| head): so do we
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get("DLLM_DEBUG") or (line := line_of(error)) is None:
            raise
        leave(line)


def quietly() -> None:
    """Logs as Hydra would let it; of processes that train together, the first one alone."""
    level = logging.INFO if os.environ.get("LOCAL_RANK", "0") == "0" else logging.ERROR
    logging.basicConfig(level=level, stream=sys.stdout, format="%(message)s")


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
