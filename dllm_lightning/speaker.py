"""A model that writes: what is asked goes in, answers come out, and every step is shown to whoever watches."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from dllm_lightning.data.asked import Asked
from dllm_lightning.data.template import ChatTemplate
from dllm_lightning.model.denoiser import NetworkDenoiser
from dllm_lightning.model.ongoing import Ongoing
from dllm_lightning.process import Denoiser
from dllm_lightning.sampler import Corrections, Sampler
from dllm_lightning.types import Canvas, Step

Watch = Callable[[Canvas, Step], None]


class TooLong(ValueError):
    """The network has no positions for so long a text."""


class Answer(NamedTuple):
    """What was said, and what it cost. The rows of a batch share their steps, calls and seconds.

    `corrections` counts the tokens that were written and then replaced by others, anywhere in the slots of the answer;
    `filled` are the texts of the gaps, where a text had any.
    """

    text: str
    ids: list[int]
    tokens: int
    steps: int
    corrections: int
    network_calls: int
    seconds: float
    filled: list[str] | None = None


@dataclass(frozen=True)
class Speaker:
    """Answers of `length` slots, written by a sampler; the end of an answer is learnt, so a text may be shorter.

    All draws come from `generator`, one answer after the other: a session is a function of its seed and its questions.
    """

    denoiser: NetworkDenoiser
    template: ChatTemplate
    sampler: Sampler
    length: int
    generator: torch.Generator
    positions: int | None = None
    """The longest row that the network can read, where there is such a limit."""

    def canvas(self, asked: Sequence[Asked]) -> Canvas:
        """What is asked, one row each. Raises BadRow or TooLong for what cannot be answered."""
        for each in asked:  # before a list of so many slots is made
            self._check(each, each.slots(self.length))
        documents = [each.document(self.template, self.length) for each in asked]
        for each, document in zip(asked, documents, strict=True):
            self._check(each, len(document.ids))
        return Canvas.left_padded(documents, self.template.tokenizer.pad_token_id).to(self.generator.device)

    def answers(self, asked: Sequence[Asked], watch: Watch | None = None) -> list[Answer]:
        """One answer to each, all of them in one batch. The time that watching takes is not counted."""
        canvas = self.canvas(asked)
        trajectory = self.sampler.trajectory(self._denoiser(asked, canvas), canvas, self.generator)
        corrections = Corrections(canvas, self.denoiser.process)
        x, steps, seconds, before = canvas.ids, 0, 0.0, self.denoiser.calls
        while True:
            start = time.perf_counter()
            step = next(trajectory, None)
            seconds += time.perf_counter() - start
            if step is None:
                break
            x, steps = step.x, step.index + 1
            corrections.note(step)
            if watch is not None:
                watch(canvas, step)
        calls, corrected = self.denoiser.calls - before, corrections.counts.tolist()
        written = [row[editable].tolist() for row, editable in zip(x, canvas.editable, strict=True)]
        read = [each.read(self.template, ids) for each, ids in zip(asked, written, strict=True)]
        return [
            Answer(each.text, ids, each.tokens, steps, count, calls, seconds, each.filled)
            for each, ids, count in zip(read, written, corrected, strict=True)
        ]

    def _denoiser(self, asked: Sequence[Asked], canvas: Canvas) -> Denoiser:
        """The network's belief; that no answer ends before given text, nobody needs to ask it."""
        ending = torch.tensor([each.ending(self.length) for each in asked], device=canvas.ids.device)
        from_here = canvas.editable.flip(1).cumsum(1).flip(1)
        inside = canvas.editable & (from_here > ending[:, None])
        return Ongoing(self.denoiser, inside, self.template.end_id) if inside.any() else self.denoiser

    def _check(self, asked: Asked, tokens: int) -> None:
        if self.positions is not None and tokens > self.positions:
            raise TooLong(
                f"{asked.extent(self.length)} {tokens} tokens, and this network reads {self.positions} at most. "
                f"Shorten one of them."
            )
