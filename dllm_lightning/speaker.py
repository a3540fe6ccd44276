"""A model that answers: conversations in, answers out, and every step on the way shown to whoever watches."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from dllm_lightning.data.messages import Message
from dllm_lightning.data.template import ChatTemplate
from dllm_lightning.model.denoiser import NetworkDenoiser
from dllm_lightning.sampler import Corrections, Sampler
from dllm_lightning.types import Canvas, Step

Watch = Callable[[Canvas, Step], None]


class TooLong(ValueError):
    """The network has no positions for so long a conversation."""


class Answer(NamedTuple):
    """What was said, and what it cost. The rows of a batch share their steps, calls and seconds.

    `corrections` counts the tokens that were written and then replaced by others, anywhere in the slots of the answer.
    """

    text: str
    ids: list[int]
    tokens: int
    steps: int
    corrections: int
    network_calls: int
    seconds: float


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

    def canvas(self, conversations: Sequence[Sequence[Message]]) -> Canvas:
        """Prompts with empty answers, one row each. Raises BadRow or TooLong for one that cannot be answered."""
        documents = [self.template.prompt(messages, self.length) for messages in conversations]
        longest = max(len(document.ids) for document in documents)
        if self.positions is not None and longest > self.positions:
            raise TooLong(
                f"The conversation and length={self.length} slots for its answer make {longest} tokens, "
                f"and this network reads {self.positions} at most. Shorten one of them."
            )
        return Canvas.left_padded(documents, self.template.tokenizer.pad_token_id).to(self.generator.device)

    def answers(self, conversations: Sequence[Sequence[Message]], watch: Watch | None = None) -> list[Answer]:
        """One answer per conversation, all of them in one batch. The time that watching takes is not counted."""
        canvas = self.canvas(conversations)
        trajectory = self.sampler.trajectory(self.denoiser, canvas, self.generator)
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
        written = [row[editable].tolist() for row, editable in zip(x, canvas.editable, strict=True)]
        calls = self.denoiser.calls - before
        rows = zip(written, corrections.counts.tolist(), strict=True)
        return [self._answer(ids, steps, corrected, calls, seconds) for ids, corrected in rows]

    def _answer(self, ids: list[int], steps: int, corrections: int, calls: int, seconds: float) -> Answer:
        ended = ids.index(self.template.end_id) if self.template.end_id in ids else len(ids)
        return Answer(self.template.answer(ids), ids, ended, steps, corrections, calls, seconds)
