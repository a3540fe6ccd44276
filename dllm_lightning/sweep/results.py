"""What a sweep has left behind, read from its folder alone: its jobs, what differs between them, and what came out.

A job is a folder with Hydra's notes in it. Its `result.json` is the last thing it writes; a job without one has not
finished, and one whose file cannot be read counts as such.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple, TypeGuard

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from dllm_lightning.sweep.names import bare

SEED = "seed"
STATES = ("done", "failed", "stopped")

Value = float | str


class Job(NamedTuple):
    """One run of a sweep. `status` is done, failed, stopped, or missing where nothing was written to the end."""

    name: str
    folder: Path
    values: dict[str, Value]
    """Of the swept keys: a number, or the text that stood on the command line."""
    status: str
    why: str | None
    metrics: dict[str, float]
    steps: int | None
    seconds: float | None


class Setting(NamedTuple):
    """Jobs that differ in nothing but their seed."""

    values: dict[str, Value]
    jobs: list[Job]

    def of(self, metric: str) -> list[float]:
        """What came out, as far as it is a number, seed by seed."""
        found = (job.metrics.get(metric, math.nan) for job in self.jobs if job.status == "done")
        return [value for value in found if math.isfinite(value)]

    def mean(self, metric: str) -> float:
        """Over seeds; not a number where no job has one."""
        return fmean(found) if (found := self.of(metric)) else math.nan

    def spread(self, metric: str) -> float:
        """The standard deviation over seeds, of the population they were drawn from; 0 for a single seed."""
        return stdev(found) if len(found := self.of(metric)) > 1 else 0.0


class Sweep(NamedTuple):
    """The jobs in a folder; `keys` are those whose values differ, in the order of the command line."""

    folder: Path
    keys: list[str]
    jobs: list[Job]

    @property
    def metrics(self) -> list[str]:
        return sorted({name for job in self.jobs for name in job.metrics})

    @property
    def setting_keys(self) -> list[str]:
        return [key for key in self.keys if key != SEED]

    @property
    def settings(self) -> list[Setting]:
        """The jobs, seeds put together, in order of their values."""
        found: dict[tuple[Value, ...], Setting] = {}
        for job in self.jobs:
            values = {key: job.values[key] for key in self.setting_keys}
            found.setdefault(tuple(values.values()), Setting(values, [])).jobs.append(job)
        return sorted(found.values(), key=lambda setting: in_order(setting.values.values()))

    @property
    def undone(self) -> list[Job]:
        return [job for job in self.jobs if job.status != "done"]


def in_order(values: Iterable[Value]) -> list[tuple[bool, float, str]]:
    """A key to sort by: numbers by size, and before texts."""
    return [(True, 0.0, value) if isinstance(value, str) else (False, value, "") for value in values]


def read(folder: Path) -> Sweep:
    """The sweep in a folder, however much of it there is."""
    notes = sorted(folder.glob("*/.hydra/overrides.yaml"))
    written = {note.parents[1]: overrides for note in notes if (overrides := _overrides(note)) is not None}
    every = list(dict.fromkeys(key for overrides in written.values() for key in overrides))
    values = {job: {key: _value(job, overrides, key) for key in every} for job, overrides in written.items()}
    keys = [key for key in every if len({of_job[key] for of_job in values.values()}) > 1]
    jobs = [_job(job, {key: values[job][key] for key in keys}) for job in written]
    return Sweep(folder, keys, sorted(jobs, key=lambda job: in_order(job.values.values())))


def _job(folder: Path, values: dict[str, Value]) -> Job:
    """A job with what its result.json says, as far as it says anything."""
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        result = None
    if not isinstance(result, Mapping) or result.get("status") not in STATES:
        return Job(folder.name, folder, values, "missing", None, {}, None, None)
    metrics = result.get("metrics")
    numbers = {name: float(v) for name, v in metrics.items() if _is_number(v)} if isinstance(metrics, Mapping) else {}
    steps, seconds, why = (result.get(name) for name in ("steps", "seconds", "why"))
    return Job(
        folder.name,
        folder,
        values,
        result["status"],
        " ".join(str(why).split()) if why else None,
        numbers,
        int(steps) if _is_number(steps) else None,
        float(seconds) if _is_number(seconds) else None,
    )


def _overrides(note: Path) -> dict[str, Override] | None:
    """By key; None where the file is not one that Hydra wrote."""
    lines = _yaml(note)
    if not isinstance(lines, Sequence):
        return None
    try:
        parsed = OverridesParser.create().parse_overrides([str(line) for line in lines])
    except HydraException:
        return None
    return {bare(each.get_key_element()): each for each in parsed}


def _value(job: Path, overrides: Mapping[str, Override], key: str) -> Value:
    """What a job was given for a key, or else what its configuration says, or which part it chose."""
    if key in overrides:
        value: Any = overrides[key].value()
        return value if _is_number(value) else overrides[key].get_value_element_as_str().strip("'\"")
    config, hydra = _yaml(job / ".hydra" / "config.yaml"), _yaml(job / ".hydra" / "hydra.yaml")
    value = OmegaConf.select(config, key) if isinstance(config, DictConfig) else None
    if value is None or OmegaConf.is_config(value):
        choices = OmegaConf.select(hydra, "hydra.runtime.choices") if isinstance(hydra, DictConfig) else None
        value = (choices or {}).get(key, value)
    return value if _is_number(value) else str(value)


def _yaml(file: Path) -> Any:
    try:
        return OmegaConf.load(file)
    except Exception:  # of the parser's many: the file is not there, or only half of it
        return None


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
