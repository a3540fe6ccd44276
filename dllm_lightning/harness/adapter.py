"""A diffusion language model as lm-evaluation-harness wants one: log-likelihoods and texts for what it asks.

A log-likelihood is minus the bound, by drawing noise: lower than the true one, and with an error that falls with the
number of draws. What has the same context sees the same noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.api.model import LM
from torch import Tensor

from dllm_lightning.data import Document, Encoder
from dllm_lightning.data.template import answer_spans
from dllm_lightning.evaluation.given import TooLong, bounds, encoder_of, with_answer
from dllm_lightning.evaluation.subject import Subject
from dllm_lightning.harness.conversation import Asked, read, written
from dllm_lightning.likelihood import Estimator, estimator
from dllm_lightning.types import Canvas


class DiffusionLM(LM):
    """Scores and writes with the model, the sampler and the number of slots of a subject.

    Without `greedy` no text is written to find out whether the model would have given this answer, and that is
    always denied: metrics that ask (acc of `loglikelihood` tasks) then mean nothing, and multiple choice, which does
    not ask, is faster. What a task says of temperatures is left to the sampler.
    """

    def __init__(self, subject: Subject, by: Estimator | None = None, draws: int = 128, greedy: bool = True) -> None:
        super().__init__()
        self.subject, self.draws, self.greedy = subject, draws, greedy
        self.by = by or estimator(subject.denoiser.process)
        self.encoder: Encoder = encoder_of(subject)

    @property
    def tokenizer_name(self) -> str:
        return self.subject.loaded.template.fingerprint

    def chat_template(self, chat_template: bool | str = False) -> str:
        return type(self.subject.loaded.template).__name__

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return written(chat_history)

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Of each continuation, given its context: minus the bound, and whether the sampler writes the same."""
        pairs: list[tuple[str, str]] = [request.args for request in requests]
        contexts = {context: number for number, context in enumerate(dict.fromkeys(context for context, _ in pairs))}
        documents = [self._given(*pair) for pair in pairs]
        numbers = [contexts[context] for context, _ in pairs]
        scores = -bounds(self.subject, documents, numbers, self.by, self.draws).mean(1)
        same = self._as_written(documents) if self.greedy else [False] * len(documents)
        return list(zip(scores.tolist(), same, strict=True))

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Of each whole text. What is too long is scored in pieces, each behind as much of what was before."""
        pieces = [self._pieces(request.args[0]) for request in requests]
        documents = [document for several in pieces for document in several]
        scores = -bounds(self.subject, documents, range(len(documents)), self.by, self.draws).mean(1)
        return [float(part.sum()) for part in scores.split([len(several) for several in pieces])]

    def generate_until(self, requests: list[Any]) -> list[str]:
        """An answer to each, up to the first text that ends it, in `max_gen_toks` slots, at most the subject's."""
        texts = [""] * len(requests)
        options = [request.args[1] for request in requests]
        lengths = [min(self.subject.length, int(each.get("max_gen_toks") or self.subject.length)) for each in options]
        generator = torch.Generator(self.subject.device).manual_seed(self.subject.seed)
        template = self.subject.loaded.template
        order = sorted(range(len(requests)), key=lambda i: lengths[i])
        for batch in self._batches(order):
            empty = [self._empty(read(requests[i].args[0]), lengths[i]) for i in batch]
            for i, ids in zip(batch, self._write(empty, generator), strict=True):
                texts[i] = _until(template.answer(ids), options[i].get("until"))
        return texts

    def _given(self, context: str, continuation: str) -> Document:
        """The context with this continuation, which alone is in question."""
        if not context.strip():
            return self._pieces(continuation)[0]
        messages, beginning = read(context)
        answer = f"{beginning}{continuation}" if beginning else continuation.strip() or continuation
        document = self._fitting(messages, answer)
        given = self._beginning(messages, beginning)
        start = document.editable.index(True)
        pairs = zip(document.ids[start:], given, strict=False)
        shared = next((i for i, (a, b) in enumerate(pairs) if a != b), len(given))
        shared = min(shared, len(document.ids) - start - 1)  # something has to be scored
        return Document(document.ids, [place >= start + shared for place in range(len(document.ids))])

    def _fitting(self, messages: Sequence[dict[str, str]], answer: str) -> Document:
        """The conversation with this answer; where it is too long, without its beginning."""
        try:
            return with_answer(self.encoder, messages, answer)
        except TooLong:
            long = with_answer(dataclasses.replace(self.encoder, max_length=2**31), messages, answer)
            return Document(long.ids[-self.encoder.max_length :], long.editable[-self.encoder.max_length :])

    def _beginning(self, messages: Sequence[dict[str, str]], beginning: str) -> list[int]:
        """The tokens of how an answer begins."""
        if not beginning.strip():
            return []
        document = self.encoder.template.encode([[*messages, {"role": "assistant", "content": beginning}]])[0]
        start, stop = answer_spans(document.editable)[-1]
        ids = document.ids[start:stop]
        return ids[: ids.index(self.encoder.template.end_id)]

    def _pieces(self, text: str) -> list[Document]:
        """A text without any conversation, in pieces that the model can read."""
        ids = self.encoder.template.plain.encode([text])[0]
        longest = self.encoder.max_length
        if len(ids) <= longest:
            return [Document(ids, [True] * len(ids))] if ids else []
        half = longest // 2
        starts = range(longest, len(ids), half)
        later = [(ids[max(0, start + half - longest) : start + half], min(half, len(ids) - start)) for start in starts]
        return [
            Document(ids[:longest], [True] * longest),
            *(Document(some, [False] * (len(some) - new) + [True] * new) for some, new in later),
        ]

    def _empty(self, asked: Asked, length: int) -> Document:
        """A question with masked slots for its answer, behind how that begins."""
        document = self.encoder.template.prompt(asked.messages, length)
        given = self._beginning(asked.messages, asked.beginning)
        start, mask = len(document.ids) - length, document.ids[-1]
        ids = [*document.ids[:start], *given, *[mask] * length][-self.encoder.max_length :]
        return Document(ids, [False] * (len(ids) - length) + [True] * length)

    def _as_written(self, documents: Sequence[Document]) -> list[bool]:
        """Whether the sampler writes the same into the slots in question."""
        mask = self.encoder.template.tokenizer.mask_token_id
        same = [False] * len(documents)
        generator = torch.Generator(self.subject.device).manual_seed(self.subject.seed)
        for batch in self._batches(sorted(range(len(documents)), key=lambda i: len(documents[i].ids))):
            hidden = [
                Document([mask if slot else i for i, slot in zip(*documents[k], strict=True)], documents[k].editable)
                for k in batch
            ]
            for k, ids in zip(batch, self._write(hidden, generator), strict=True):
                same[k] = ids == [i for i, slot in zip(*documents[k], strict=True) if slot]
        return same

    def _write(self, documents: Sequence[Document], generator: torch.Generator) -> list[list[int]]:
        """What the sampler writes into the slots of each."""
        canvas = Canvas.left_padded(documents, self.subject.pad_id).to(self.subject.device)
        with self.subject.arithmetic():
            x: Tensor = self.subject.sampler.sample(self.subject.denoiser, canvas, generator)
        return [row[slots].tolist() for row, slots in zip(x, canvas.editable, strict=True)]

    def _batches(self, order: Sequence[int]) -> list[Sequence[int]]:
        size = self.subject.batch_size
        return [order[i : i + size] for i in range(0, len(order), size)]


def _until(text: str, stops: str | Sequence[str] | None) -> str:
    """The text up to the first of these."""
    for stop in [stops] if isinstance(stops, str) else stops or []:
        if stop:
            text = text.partition(stop)[0]
    return text
