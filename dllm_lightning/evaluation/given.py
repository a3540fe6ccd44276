"""Given answers: how a conversation with one is laid out, and the bound on its likelihood."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dllm_lightning.data import Document, Encoder
from dllm_lightning.data.documents import Counts
from dllm_lightning.data.messages import Message
from dllm_lightning.data.template import answer_spans
from dllm_lightning.evaluation.subject import Subject, Track, untracked
from dllm_lightning.likelihood import Estimator, nats
from dllm_lightning.types import Canvas


class TooLong(ValueError):
    """The model does not read so long a text."""


def encoder_of(subject: Subject) -> Encoder:
    """Lays texts out as the model was trained to read them, as long as the network can."""
    own = subject.loaded.config.get("data") or {}
    longest = subject.longest or own.get("max_length") or 512
    return Encoder(subject.loaded.template, longest, "drop", own.get("answer_length"))


def with_answer(encoder: Encoder, messages: Sequence[Message], answer: str) -> Document:
    """The conversation with this answer, which alone is in question. Raises TooLong where it does not fit."""
    whole = encoder.template.encode([[*messages, {"role": "assistant", "content": answer}]])[0]
    document = encoder.fit(whole, Counts())
    if document is None:
        raise TooLong(f"{len(whole.ids)} tokens are more than the {encoder.max_length} that this model reads")
    start, _ = answer_spans(document.editable)[-1]
    return Document(document.ids, [False] * start + [True] * (len(document.ids) - start))


def bounds(
    subject: Subject,
    documents: Sequence[Document],
    numbers: Sequence[int],
    by: Estimator,
    draws: int,
    track: Track = untracked,
) -> Tensor:
    """Draws (D draws) of the bound on -log p of each document's editable slots, in nats.

    Documents with the same number share their noise. They are read in order of their lengths, which changes nothing.
    """
    order = sorted(range(len(documents)), key=lambda i: len(documents[i].ids))
    batches = [order[i : i + subject.batch_size] for i in range(0, len(order), subject.batch_size)]
    found = torch.zeros(len(documents), draws, dtype=torch.float64)
    for batch in track(batches, "likelihood", len(batches)):
        canvas = Canvas.left_padded([documents[i] for i in batch], subject.pad_id).to(subject.device)
        with subject.arithmetic():
            drawn = nats(subject.denoiser, by, canvas, [numbers[i] for i in batch], subject.seed, draws)
        found[batch] = drawn.cpu()
    return found
