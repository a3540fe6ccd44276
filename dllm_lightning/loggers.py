"""Loggers that fit a run: Weights & Biases that never asks, and curves in a CSV file that go on when the run does."""

from __future__ import annotations

import csv
import logging
import netrc
import os
import socket
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only

log = logging.getLogger(__name__)


class Curves(CSVLogger):
    """Lightning's CSV logger, but a run that goes on adds its rows to the metrics.csv of before."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            self._experiment = _Appending(self.log_dir)
        return self._experiment


class _Appending(ExperimentWriter):
    def __init__(self, log_dir: str) -> None:
        file = Path(log_dir) / self.NAME_METRICS_FILE
        aside = file.with_suffix(".before")
        if file.is_file():
            file.replace(aside)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it would delete what is there
            super().__init__(log_dir)
        if aside.is_file():
            aside.replace(file)
            with file.open(newline="", encoding="utf-8") as written:
                self.metrics_keys = next(csv.reader(written), [])


def wandb_logger(folder: str, **options: Any) -> Any:
    """Lightning's WandbLogger, its files in `folder`. `WANDB_MODE` has the last word, as everywhere in W&B."""
    from lightning.pytorch.loggers import WandbLogger

    os.environ.setdefault("WANDB_SILENT", "true")
    if "WANDB_MODE" not in os.environ and (reason := _why_offline()):
        options["mode"] = "offline"  # the environment is not read again
        sentence = "W&B runs offline, because %s. To upload later: wandb sync %s/wandb/offline-run-*"
        rank_zero_only(log.warning)(sentence, reason, folder)
    Path(folder).mkdir(parents=True, exist_ok=True)
    return WandbLogger(save_dir=folder, log_model=False, **options)


def _why_offline() -> str | None:
    import wandb

    settings = wandb.setup().settings
    address = urlparse(str(settings.base_url))
    if not (settings.api_key or _stored_key(address.hostname or "")):
        return "there is no API key (wandb login, or WANDB_API_KEY)"
    try:
        socket.create_connection((address.hostname or "", address.port or 443), timeout=3).close()
    except OSError:
        return f"{settings.base_url} cannot be reached"
    return None


def _stored_key(host: str) -> str | None:
    """The key that `wandb login` wrote into the user's netrc."""
    try:
        entry = netrc.netrc().authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return None
    return entry[2] if entry else None
