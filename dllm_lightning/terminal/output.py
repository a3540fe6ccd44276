"""Answers in the three forms in which they leave: live in a terminal, as plain text, and as JSON for scripts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.text import Text

from dllm_lightning.data.asked import Asked
from dllm_lightning.speaker import Answer, Speaker
from dllm_lightning.terminal.live import LiveView, count, one_line
from dllm_lightning.terminal.pieces import Pieces


class Output(Protocol):
    """Has answered what is asked, and shows the answers."""

    def answers(self, speaker: Speaker, asked: Sequence[Asked]) -> list[Answer]: ...


@dataclass(frozen=True)
class LiveOutput:
    """Every step in place, then the finished texts, each under its question if `echo`."""

    console: Console
    pause: float = 0.0
    echo: bool = True

    def answers(self, speaker: Speaker, asked: Sequence[Asked]) -> list[Answer]:
        titles, given = [each.title for each in asked], [each.given(speaker.template) for each in asked]
        pieces, process, told = Pieces(speaker.template), speaker.denoiser.process, caption(speaker.sampler)
        with LiveView(self.console, pieces, process, titles, told, self.pause, given) as view:
            answers = speaker.answers(asked, view)
        for title, answer in zip(titles, answers, strict=True):
            self._print(title, answer)
        return answers

    def _print(self, title: str, answer: Answer) -> None:
        if self.echo:
            self.console.print(Text(f"❯ {one_line(title)}", style="bold"), soft_wrap=True)
        empty = Text("(an empty answer)", style="bright_black")
        self.console.print(Text(harmless(answer.text)) if answer.text.strip() else empty, soft_wrap=True)
        pace = f", {answer.tokens / answer.seconds:.0f} tokens/s" if answer.tokens and answer.seconds > 0 else ""
        mended = f", {count(answer.corrections, 'correction')}" if answer.corrections else ""
        work = f"{count(answer.tokens, 'token')} in {count(answer.steps, 'step')}{mended}"
        cost = f"{work}, {answer.seconds:.2f} s{pace}"
        self.console.print(Text(cost, style="bright_black"), Text(), sep="\n")


@dataclass(frozen=True)
class PlainOutput:
    """The finished texts alone, each under its question if `echo`."""

    out: TextIO
    echo: bool = False

    def answers(self, speaker: Speaker, asked: Sequence[Asked]) -> list[Answer]:
        answers = speaker.answers(asked)
        for each, answer in zip(asked, answers, strict=True):
            text = harmless(answer.text)
            print(f"> {one_line(each.title)}\n{text}\n" if self.echo else text, file=self.out, flush=True)
        return answers


@dataclass(frozen=True)
class JsonOutput:
    """One JSON object per answer, on a line of its own: what was asked, what was said, and what it cost."""

    out: TextIO
    seed: int

    def answers(self, speaker: Speaker, asked: Sequence[Asked]) -> list[Answer]:
        answers = speaker.answers(asked)
        for each, answer in zip(asked, answers, strict=True):
            cost = answer._asdict() | {"seconds": round(answer.seconds, 4)}
            text, filled = cost.pop("text"), cost.pop("filled")
            said = {"answer": text} if filled is None else {"text": text, "filled": filled}
            told = each.told() | said | cost | {"batch": len(answers), "seed": self.seed}
            told["sampler"] = named(speaker.sampler)
            print(json.dumps(told, ensure_ascii=False), file=self.out, flush=True)
        return answers


def caption(part: Any) -> str:
    """A sampler, or a part of one, and what was chosen for it: `Reveal(steps=8)`."""
    usual = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(part)}
    chosen = [(name, getattr(part, name)) for name in usual if getattr(part, name) != usual[name]]
    told = (f"{name}={caption(value) if is_dataclass(value) else value}" for name, value in chosen)
    return f"{type(part).__name__}({', '.join(told)})".removesuffix("()")


def named(part: Any) -> dict[str, Any]:
    """A sampler and its parts by their names, with all their options."""
    options = {f.name: getattr(part, f.name) for f in fields(part)}
    return {"name": type(part).__name__} | {n: named(v) if is_dataclass(v) else v for n, v in options.items()}


def harmless(text: str) -> str:
    """Free of control characters but line breaks and tabs: a model's text must not steer the terminal."""
    return "".join(c for c in text if c in "\n\t" or c.isprintable())
