"""A sweep as a table: `sweep.csv` with everything, and in the terminal the jobs from best to worst.

Where seeds were swept, a second table has a line for each setting: the mean over its seeds, and their spread.
"""

from __future__ import annotations

import csv
import math
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dllm_lightning.sweep.results import SEED, Job, Setting, Sweep, Value

if TYPE_CHECKING:
    from rich.table import Table

Mode = Literal["min", "max"]

MARK = "★"
COLOURS = {"done": "green", "failed": "red", "stopped": "yellow", "missing": "yellow"}


def write_csv(sweep: Sweep, file: Path) -> None:
    """A row for each job, in the order of its values. The file is whole or as it was before."""
    columns = ["job", *sweep.keys, "status", *sweep.metrics, "steps", "seconds", "why"]
    aside = file.with_name(f".{file.name}.new")
    with aside.open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out)
        rows.writerow(columns)
        for job in sweep.jobs:
            metrics = (job.metrics.get(name) for name in sweep.metrics)
            rows.writerow([job.name, *job.values.values(), job.status, *metrics, job.steps, job.seconds, job.why])
    os.replace(aside, file)


def best_first(jobs: Iterable[Job], metric: str, mode: Mode) -> list[Job]:
    """The jobs that are done, from best to worst, and behind them those without a result."""
    return sorted(jobs, key=lambda job: _worth(_result(job, metric), mode))


def best_settings_first(sweep: Sweep, metric: str, mode: Mode) -> list[Setting]:
    return sorted(sweep.settings, key=lambda setting: _worth(setting.mean(metric), mode))


def show(sweep: Sweep, metric: str, mode: Mode, also: Iterable[str] = ()) -> None:
    """Prints the jobs, and the settings where each has several seeds."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 160)  # a log file is as wide as it has to be
    shown = [metric, *(name for name in also if name in sweep.metrics)]
    console.print(f"\n{sweep.folder}", style="bold", soft_wrap=True, markup=False, highlight=False)
    console.print(_of_jobs(sweep, shown, mode))
    if SEED in sweep.keys and sweep.setting_keys:
        console.print("mean ± standard deviation over seeds", style="bold", highlight=False)
        console.print(_of_settings(sweep, shown, mode))


def _of_jobs(sweep: Sweep, metrics: list[str], mode: Mode) -> Table:
    jobs = best_first(sweep.jobs, metrics[0], mode)
    table = _grid(["", *(sweep.keys or ["job"]), *metrics, "seconds", "status"])
    for place, job in enumerate(jobs):
        values = [*job.values.values()] or [job.name]
        best = place == 0 and math.isfinite(_result(job, metrics[0]))
        results = [_plus_minus(job.metrics.get(name), job.metrics.get(f"{name}_error")) for name in metrics]
        seconds = "" if job.seconds is None else f"{job.seconds:.0f}"
        status = f"[{COLOURS[job.status]}]{job.status}[/]"
        _add(table, best, [*map(text, values), *results, seconds], status)
    return table


def _of_settings(sweep: Sweep, metrics: list[str], mode: Mode) -> Table:
    settings = best_settings_first(sweep, metrics[0], mode)
    table = _grid(["", *sweep.setting_keys, *metrics, "seeds"])
    for place, setting in enumerate(settings):
        best = place == 0 and math.isfinite(setting.mean(metrics[0]))
        results = [_plus_minus(setting.mean(name), setting.spread(name)) for name in metrics]
        _add(table, best, [*map(text, setting.values.values()), *results], str(len(setting.of(metrics[0]))))
    return table


def text(value: Value) -> str:
    """A swept value as short as it can be without becoming another one at a glance."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _grid(columns: list[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(re.sub(r"[./](?=[^./]*$)", r"\g<0>\n", column), overflow="fold")  # long keys on two lines
    return table


def _add(table: Table, best: bool, cells: list[str], last: str) -> None:
    from rich.markup import escape

    table.add_row(MARK if best else "", *map(escape, cells), last, style="bold" if best else "")


def _plus_minus(value: float | None, error: float | None) -> str:
    if value is None or not math.isfinite(value):
        return ""
    return f"{value:.4g}" if not error else f"{value:.{_places(error)}f} ± {error:.{_places(error)}f}"


def _places(error: float) -> int:
    """As many decimal places as the first two digits of an error need."""
    return min(max(1 - math.floor(math.log10(error)), 0), 6) if math.isfinite(error) else 3


def _result(job: Job, metric: str) -> float:
    return job.metrics.get(metric, math.nan) if job.status == "done" else math.nan


def _worth(value: float, mode: Mode) -> float:
    """Smaller is better; what is no number comes last."""
    return math.inf if not math.isfinite(value) else value if mode == "min" else -value
