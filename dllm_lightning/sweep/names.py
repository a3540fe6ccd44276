"""What a job of a sweep is called: by the values that were swept, and by nothing else.

So a sweep can be given more values later, and each of its jobs finds its folder again. Importing this module teaches
OmegaConf three words: `${job_name:...}` for the folder, `${job_or_run:...}` and `${sweep_group:...}` for a logger.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

SWEPT = "DLLM_SWEPT"
"""The environment variable with the swept keys: a job, in whatever process, knows only its own values."""
LONGEST = 120  # characters; file systems end at 255 bytes


def swept_keys(config: DictConfig) -> list[str]:
    """The keys to which the command line, or the sweeper's own configuration, gives several values."""
    written = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    overrides = OverridesParser.create().parse_overrides([*written, *config.hydra.overrides.task])
    last = {bare(each.get_key_element()): each for each in overrides}  # the command line has the last word
    return [key for key, each in last.items() if each.is_sweep_override()]


def remember(keys: Iterable[str]) -> None:
    """For the jobs of this sweep, which inherit the environment."""
    os.environ[SWEPT] = ",".join(dict.fromkeys(keys))


def forget() -> None:
    os.environ.pop(SWEPT, None)


def job_name(overrides: Sequence[str], number: int) -> str:
    """`noise.min_ratio=0.05,noise.max_ratio=0.8`; the number of the job where nothing was swept."""
    keys = os.environ.get(SWEPT, "").split(",")
    named = [each.lstrip("+") for each in overrides if bare(each) in keys]
    return as_folder(",".join(named)) or str(number)


def as_folder(name: str) -> str:
    """The name with what a file system or a shell might stumble over replaced, and cut; then a hash keeps it unique."""
    plain = re.sub(r"[^\w.,=@-]+", "_", name, flags=re.ASCII)
    if plain == name and len(name) <= LONGEST:
        return name
    return f"{plain[: LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def bare(override: str) -> str:
    """The key of an override, without the sign that adds it."""
    return override.partition("=")[0].lstrip("+")


def job_or_run(run: str) -> str:
    """The name of this job inside a sweep, that of the run outside of one."""
    return Path(HydraConfig.get().runtime.output_dir).name if _in_a_sweep() else run


def sweep_group(run: str) -> str | None:
    """The name of the sweep that this job belongs to, or None."""
    return run if _in_a_sweep() else None


def _in_a_sweep() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


for resolver in (job_name, job_or_run, sweep_group):
    OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)
