"""Weights & Biases that never asks: online when it can be, offline when not, and it says which."""

from __future__ import annotations

import logging
import netrc
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from lightning.pytorch.utilities import rank_zero_only

log = logging.getLogger(__name__)


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
