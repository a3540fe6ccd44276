"""A trajectory, live: noise is faint, and tokens appear in place in the colour of their confidence.

Hidden slots are blocks, random tokens are shown as what they say. A token that takes the place of another that was
written, a correction, is underlined from then on. What is given in a text with gaps is grey, so that the gaps are seen.
"""

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

from dllm_lightning.process import Process
from dllm_lightning.sampler import Corrections
from dllm_lightning.terminal.pieces import Pieces
from dllm_lightning.types import Canvas, Step

HIDDEN, ENDED, BEHIND = " ░░░", " ■", " ·"
FAINT, GIVEN = Style(color="bright_black", dim=True), Style(color="bright_black")
DOUBTFUL, LIKELY, SURE = Style(color="red"), Style(color="dark_orange"), Style(color="green")
CORRECTED = Style(underline=True)
CORRECTING = Style(color="magenta", bold=True) + CORRECTED
FRESH = 3
"""Steps for which a token keeps its colour; then it has settled."""


class LiveView:
    """Draws the rows of a batch while they are written, as many as the terminal is high; gone when all is said.

    A row is shown from its first slot to write on; in a text that begins with something given, as many slots earlier
    as `given` says. `pause` is the least time, in seconds, that a step stays on the screen: little networks are faster
    than eyes.
    """

    def __init__(
        self,
        console: Console,
        pieces: Pieces,
        process: Process,
        questions: Sequence[str],
        caption: str,
        pause: float = 0.0,
        given: Sequence[int] | None = None,
    ) -> None:
        self.given = given or [0] * len(questions)
        self.pieces, self.questions, self.caption, self.pause = pieces, questions, caption, pause
        self.console, self.process = console, process
        self.live = Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop")
        self.start = self.shown = time.perf_counter()
        self.age = self.confidence = self.written = self.corrected = torch.empty(0)
        self.corrections: Corrections | None = None

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
        if self.corrections is None:
            self.age, self.confidence = torch.full(changed.shape, FRESH), torch.zeros(changed.shape)
            self.corrected = torch.zeros_like(changed)
            self.corrections = Corrections(canvas, self.process)
        self.corrections.note(step)
        self.age = torch.where(changed, 0, self.age + 1)
        self.confidence = torch.where(changed, step.confidence.cpu().float(), self.confidence)
        self.written = self.corrections.written.cpu() | (step.s == 0.0)  # what nobody touched to the end was right
        self.corrected = (self.corrected | self.corrections.corrected.cpu()) & self.written
        room = max(1, (self.console.height - 3) // 3) if len(self.questions) > 1 else 1
        rows = [self._row(canvas, step, row) for row in range(min(room, len(self.questions)))]
        more = len(self.questions) - len(rows)
        return Group(*rows, *([Text(f"  and {more} more", style="dim")] if more else []), self._status(canvas, step))

    def _row(self, canvas: Canvas, step: Step, row: int) -> RenderableType:
        editable = canvas.editable[row].cpu()
        start = int(editable.long().argmax()) - self.given[row]
        written = (self.written[row] | ~editable)[start:].tolist()
        looks = [self._look(row, place, bool(editable[place])) for place in range(start, len(editable))]
        text = self._text(step.x[row, start:].tolist(), looks, written, (~editable[start:]).tolist())
        title = Text(f" {one_line(self.questions[row])} ", style="bold", overflow="ellipsis", no_wrap=True)
        return Panel(text, title=title, title_align="left", border_style="bright_black", padding=(0, 2))

    def _look(self, row: int, place: int, editable: bool) -> Style:
        if not editable:
            return GIVEN
        if not self.written[row, place]:
            return FAINT
        confidence, age = self.confidence[row, place].item(), int(self.age[row, place])
        return style(confidence, age, bool(self.corrected[row, place]))

    def _text(
        self, ids: Sequence[int], looks: Sequence[Style], written: Sequence[bool], given: Sequence[bool] | None = None
    ) -> Text:
        """Behind a written token that ends the answer, up to what is given, everything is faint: it will be cut off."""
        given, over, text = given or [False] * len(ids), False, Text()
        for place, piece in enumerate(self.pieces(ids)):
            ends = ids[place] == self.pieces.end_id and written[place] and not given[place]
            over = over and not given[place]
            if over:
                seen, look = BEHIND, FAINT
            elif piece is None:
                seen, look = HIDDEN, FAINT
            elif ids[place] == self.pieces.end_id and not given[place]:
                seen, look = ENDED, FAINT
            else:
                seen, look = visible(piece), looks[place]
            over = over or ends
            text.append(seen if place else seen.lstrip(" "), style=look)
        return text

    def _status(self, canvas: Canvas, step: Step) -> RenderableType:
        slots = int(canvas.editable.sum())
        written = int((self.written & canvas.editable.cpu()).sum())
        corrections = int(self.corrections.counts.sum()) if self.corrections is not None else 0
        line = Table.grid(padding=(0, 2))
        seconds = time.perf_counter() - self.start
        line.add_row(
            ProgressBar(
                total=max(slots, 1), completed=written, width=24, complete_style="green", finished_style="green"
            ),
            Text(f"step {step.index + 1}", style="default"),
            Text(f"{written}/{slots} tokens", style="bright_black"),
            *([Text(count(corrections, "correction"), style=CORRECTING)] if corrections else []),
            Text(f"{seconds:.1f} s", style="bright_black"),
            Text(self.caption, style="bright_black"),
        )
        return line


def style(confidence: float, age: int, corrected: bool = False) -> Style:
    """Red below .3, orange below .7, green above; bold when new, and the terminal's own colour once settled.

    A correction is underlined for good, and has a colour of its own while it is new.
    """
    if age >= FRESH:
        return CORRECTED if corrected else Style()
    colour = DOUBTFUL if confidence < 0.3 else LIKELY if confidence < 0.7 else SURE
    return CORRECTING if corrected and age == 0 else colour + Style(bold=age == 0, underline=corrected)


def visible(piece: str) -> str:
    """On one line: line breaks, tabs and other control characters as signs."""
    return "".join("⏎" if c == "\n" else "⇥" if c == "\t" else c if c.isprintable() else "�" for c in piece)


def one_line(text: str) -> str:
    """A text without line breaks of its own."""
    return visible(text.strip())


def count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
