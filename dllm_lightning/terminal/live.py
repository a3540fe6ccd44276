"""A trajectory, live: hidden slots are dim blocks, and tokens appear in place in the colour of their confidence."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.style import Style
from rich.table import Table
from rich.text import Text

from dllm_lightning.terminal.pieces import Pieces
from dllm_lightning.types import Canvas, Step

HIDDEN, ENDED, BEHIND = " ░░░", " ■", " ·"
FAINT = Style(color="bright_black", dim=True)
DOUBTFUL, LIKELY, SURE = Style(color="red"), Style(color="dark_orange"), Style(color="green")
FRESH = 3
"""Steps for which a token keeps its colour; then it has settled."""


class LiveView:
    """Draws the rows of a batch while they are written, as many as the terminal is high; gone when all is said.

    `pause` is the least time, in seconds, that a step stays on the screen: little networks are faster than eyes.
    """

    def __init__(
        self, console: Console, pieces: Pieces, questions: Sequence[str], caption: str, pause: float = 0.0
    ) -> None:
        self.pieces, self.questions, self.caption, self.pause = pieces, questions, caption, pause
        self.console = console
        self.live = Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop")
        self.start = self.shown = time.perf_counter()
        self.age = self.confidence = torch.empty(0)

    def __enter__(self) -> LiveView:
        self.live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.live.__exit__(*error)

    def __call__(self, canvas: Canvas, step: Step) -> None:
        """Shows one more step, no sooner than `pause` after the last."""
        time.sleep(max(0.0, self.shown + self.pause - time.perf_counter()))
        self.live.update(self.frame(canvas, step), refresh=True)
        self.shown = time.perf_counter()

    def frame(self, canvas: Canvas, step: Step) -> RenderableType:
        """The picture of one step."""
        changed = step.changed.cpu()
        if self.age.shape != changed.shape:
            self.age, self.confidence = torch.full(changed.shape, FRESH), torch.zeros(changed.shape)
        self.age = torch.where(changed, 0, self.age + 1)
        self.confidence = torch.where(changed, step.confidence.cpu().float(), self.confidence)
        room = max(1, (self.console.height - 3) // 3) if len(self.questions) > 1 else 1
        rows = [self._row(canvas, step, row) for row in range(min(room, len(self.questions)))]
        more = len(self.questions) - len(rows)
        return Group(*rows, *([Text(f"  and {more} more", style="dim")] if more else []), self._status(canvas, step))

    def _row(self, canvas: Canvas, step: Step, row: int) -> RenderableType:
        editable = canvas.editable[row].cpu()
        ids = step.x[row].cpu()[editable].tolist()
        text = self._text(ids, self.confidence[row][editable].tolist(), self.age[row][editable].tolist())
        title = Text(f" {one_line(self.questions[row])} ", style="bold", overflow="ellipsis", no_wrap=True)
        return Panel(text, title=title, title_align="left", border_style="bright_black", padding=(0, 2))

    def _text(self, ids: Sequence[int], confidence: Sequence[float], age: Sequence[int]) -> Text:
        """Behind a token that ends the answer everything is faint: it will be cut off."""
        end = ids.index(self.pieces.end_id) if self.pieces.end_id in ids else len(ids)
        text = Text()
        for place, piece in enumerate(self.pieces(ids)):
            if place > end:
                seen, look = BEHIND, FAINT
            elif piece is None:
                seen, look = HIDDEN, FAINT
            elif place == end:
                seen, look = ENDED, FAINT
            else:
                seen, look = visible(piece), style(confidence[place], age[place])
            text.append(seen if place else seen.lstrip(" "), style=look)
        return text

    def _status(self, canvas: Canvas, step: Step) -> RenderableType:
        slots = int(canvas.editable.sum())
        hidden = int(((step.x == self.pieces.hidden_id) & canvas.editable).sum())
        line = Table.grid(padding=(0, 2))
        seconds = time.perf_counter() - self.start
        line.add_row(
            ProgressBar(
                total=max(slots, 1), completed=slots - hidden, width=24, complete_style="green", finished_style="green"
            ),
            Text(f"step {step.index + 1}", style="default"),
            Text(f"{slots - hidden}/{slots} tokens", style="bright_black"),
            Text(f"{seconds:.1f} s", style="bright_black"),
            Text(self.caption, style="bright_black"),
        )
        return line


def style(confidence: float, age: int) -> Style:
    """Red below .3, orange below .7, green above; bold when new, and the terminal's own colour once settled."""
    if age >= FRESH:
        return Style()
    colour = DOUBTFUL if confidence < 0.3 else LIKELY if confidence < 0.7 else SURE
    return colour + Style(bold=age == 0)


def visible(piece: str) -> str:
    """On one line: line breaks, tabs and other control characters as signs."""
    return "".join("⏎" if c == "\n" else "⇥" if c == "\t" else c if c.isprintable() else "�" for c in piece)


def one_line(text: str) -> str:
    """A text without line breaks of its own."""
    return visible(text.strip())
