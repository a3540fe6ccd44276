"""The forms in which answers leave, by name: live where somebody watches, plain text where nobody does."""

from __future__ import annotations

import sys

from rich.console import Console

from dllm_lightning.terminal.output import JsonOutput, LiveOutput, Output, PlainOutput


def output(form: str, seed: int, pause: float, echo: bool) -> Output:
    """Answers on standard output: `json`, `rich`, `plain`, or `auto`, which is rich in a terminal."""
    if form == "json":
        return JsonOutput(sys.stdout, seed)
    if form == "rich" or (form == "auto" and sys.stdout.isatty()):
        return LiveOutput(console(), pause, echo)
    return PlainOutput(sys.stdout, echo)


def console() -> Console:
    """Standard output, where markup and emoji codes in a text are just text."""
    return Console(markup=False, emoji=False, highlight=False)
