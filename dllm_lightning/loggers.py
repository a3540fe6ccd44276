"""Loggers that fit a run: Weights & Biases that never asks, and curves in a CSV file that go on when the run does."""

from __future__ import annotations

import csv
import io
import logging
import netrc
import os
import socket
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import ParseResult, urlparse

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only

log = logging.getLogger(__name__)


class Curves(CSVLogger):
    """Lightning's CSV logger, but a run that goes on keeps the metrics.csv of before, up to where it goes on from."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            self._experiment = _Continued(self.log_dir)
        return self._experiment

    def forget(self, step: int) -> None:
        """Drops what was logged from this step on: it will be done, and logged, again."""
        keep_rows(Path(self.log_dir) / _Continued.NAME_METRICS_FILE, lambda row: int(row["step"]) < step)


class _Continued(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:  # Lightning's deletes what is there
        self.metrics_keys, _ = _read(Path(self.metrics_file_path))

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        _, rows = _read(file := Path(self.metrics_file_path))
        _write(file, fieldnames, rows)


def keep_rows(file: Path, wanted: Callable[[dict[str, str]], bool]) -> None:
    """Drops rows from a CSV file, and the last line if a killed run left only half of it."""
    if not file.is_file():
        return
    columns, rows = _read(file)
    if columns:
        _write(file, columns, [row for row in rows if wanted(row)])
    else:
        file.unlink()


def _read(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The columns and rows of a CSV file, as far as their lines are whole; nothing where there is no such file."""
    if not file.is_file():
        return [], []
    text = file.read_text(encoding="utf-8")
    reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    return [*(reader.fieldnames or [])], [row for row in reader if None not in row.values()]


def _write(file: Path, columns: Sequence[str], rows: Sequence[dict[str, str]]) -> None:
    """Whole or not at all."""
    aside = file.with_name(f".{file.name}.partial")
    with aside.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, columns)
        writer.writeheader()
        writer.writerows(rows)
    aside.replace(file)


RUN_ID = Path("wandb") / "run-id.txt"
MODES = ("online", "offline", "disabled", "shared", "run", "dryrun")
"""What W&B calls its modes; the last two are older names of the first two."""


def go_on(loggers: Sequence[Logger], folder: Path, step: int) -> None:
    """Prepares loggers for training from this step on: curves end before it, and W&B's run is the one of next time."""
    for logger in loggers:
        if isinstance(logger, Curves):
            logger.forget(step)
        elif isinstance(logger, WandbLogger) and logger.version:
            (folder / RUN_ID).parent.mkdir(parents=True, exist_ok=True)
            (folder / RUN_ID).write_text(f"{logger.version}\n")


class NoKey(ValueError):
    """Somebody insists on W&B online, which would ask for a key here."""


def wandb_logger(folder: str, mode: str | None = None, **options: Any) -> Any:
    """Lightning's WandbLogger, its files in `folder`: online where there is a key and a network, or as `mode` says.

    `WANDB_MODE` has the last word, as everywhere in W&B. Raises NoKey for a mode that needs one where there is none.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    if said := os.environ.get("WANDB_MODE"):  # which W&B reads by itself
        _check_mode("WANDB_MODE", said)
    elif mode is not None:
        _check_mode("logger.mode", mode)
        options["mode"] = mode
    elif reason := _why_offline():
        options["mode"] = "offline"  # the environment is not read again
        sentence = "W&B runs offline, because %s. To upload later: wandb sync %s/wandb/offline-run-*"
        rank_zero_only(log.warning)(sentence, reason, folder)
    Path(folder).mkdir(parents=True, exist_ok=True)
    return WandbLogger(save_dir=folder, log_model=False, id=_run_id(Path(folder)), resume="allow", **options)


def _run_id(folder: Path) -> str:
    """The same whenever a run goes on: its curves are one."""
    file = folder / RUN_ID
    return file.read_text().strip() if file.is_file() else uuid.uuid4().hex[:8]


def _check_mode(name: str, mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f"{name}={mode} is no mode of W&B: give online, offline or disabled.")
    if mode in ("online", "shared", "run") and not _has_key():
        raise NoKey(
            f"{name}={mode} needs an API key, and there is none: run `wandb login` or set WANDB_API_KEY, or leave "
            f"{name} out to log offline."
        )


def _why_offline() -> str | None:
    if not _has_key():
        return "there is no API key (wandb login, or WANDB_API_KEY)"
    address = _address()
    try:
        socket.create_connection((address.hostname or "", address.port or 443), timeout=3).close()
    except OSError:
        return f"{address.geturl()} cannot be reached"
    return None


def _address() -> ParseResult:
    import wandb

    return urlparse(str(wandb.setup().settings.base_url))


def _has_key() -> bool:
    import wandb

    return bool(wandb.setup().settings.api_key or _stored_key(_address().hostname or ""))


def _stored_key(host: str) -> str | None:
    """The key that `wandb login` wrote into the user's netrc."""
    try:
        entry = netrc.netrc().authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return None
    return entry[2] if entry else None
