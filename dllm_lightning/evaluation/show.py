"""Findings as a table in the terminal."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from dllm_lightning.evaluation.findings import Finding, Section

T = TypeVar("T")

SHARES = ("exact_match", "choice", "repeated", "distinct")
"""Names of numbers that are shares, and shown in percent."""


def progress(things: Iterable[T], what: str, count: int) -> Iterable[T]:
    """The same things, with a bar on standard error while somebody watches there."""
    if not sys.stderr.isatty():
        return things
    return track(things, what, total=count, console=Console(stderr=True), transient=True)


def show(title: str, sections: Sequence[Section]) -> None:
    """Prints all findings, one below the other."""
    console = Console(markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(Text(f"\n{title}", style="bold"), soft_wrap=True)
    for section in sections:
        console.print(Text.assemble((f"\n{section.title}  ", "bold"), (section.caption, "bright_black")))
        console.print(_table(section.findings))


def _table(findings: Iterable[Finding]) -> Table:
    shown = [each for each in findings if each.called and math.isfinite(each.value)]
    beside = any(math.isfinite(each.reference) for each in shown)
    table = Table(box=box.SIMPLE, show_header=False, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    if beside:
        table.add_column(justify="right", no_wrap=True, style="cyan")
    table.add_column(style="bright_black")
    for each in shown:
        percent = each.name.startswith(SHARES)
        cells = [each.called, number(each.value, each.error, percent)]
        table.add_row(*cells, *([number(each.reference, math.nan, percent)] if beside else []), Text(each.note))
    return table


def number(value: float, error: float, percent: bool = False) -> str:
    """A number with as many digits as its error leaves it."""
    if not math.isfinite(value):
        return ""
    if percent:
        return f"{100 * value:.1f} %" if not math.isfinite(error) else f"{100 * value:.1f} ± {100 * error:.1f} %"
    if not math.isfinite(error) or error <= 0:
        return f"{value:.4g}"
    places = min(max(1 - math.floor(math.log10(error)), 0), 6)
    return f"{value:.{places}f} ± {error:.{places}f}"
