"""The words every room speaks: vocabularies, canvases, noised batches, slots and steps.

Legend of shapes: `B` batch, `L` length, `N` slots in question, `K` vocabulary (width of the logits), `D` network width.
Clock: t = 0 is clean, t = 1 is noise, and s < t always. What crosses a loader or a step boundary is a NamedTuple.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_UNUSED = re.compile(r"\[unused\d+\]")


class InvalidTokenizer(ValueError):
    """The tokenizer cannot serve a diffusion language model."""


@dataclass(frozen=True)
class Vocab:
    """What the ids mean to a process: how wide the logits are, which ids are special, which ids noise may use.

    `size` is K, the width of the logits; `length` <= `size` is one past the highest id that the tokenizer can decode.
    `eos_id` ends an answer. `noise_ids` are the ordinary tokens: no special token, no unused row. A random token is one
    of these.
    """

    size: int
    length: int
    mask_id: int
    pad_id: int
    eos_id: int
    noise_ids: Int[Tensor, " V"] = field(repr=False, compare=False)

    @classmethod
    def of(cls, tokenizer: Any, width: int | None = None, end_id: int | None = None) -> Vocab:
        """The vocabulary of a Hugging Face tokenizer under a network with `width` logits (default: as many as ids).

        `end_id` is what ends an answer in the template at hand (default: the tokenizer's own end).

        Raises InvalidTokenizer when there is no mask token, no padding or ending token, or an id beyond the logits.
        """
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        if tokenizer.mask_token_id is None:
            raise InvalidTokenizer(
                f"The tokenizer {name!r} has no mask token, and a masked diffusion model writes over masks. "
                f"Use one that has it (ModernBERT, BERT, RoBERTa), or add one with "
                f"add_special_tokens({{'mask_token': '[MASK]'}})."
            )
        highest = max(tokenizer.get_vocab().values())
        width = highest + 1 if width is None else width
        if highest >= width:
            raise InvalidTokenizer(
                f"The tokenizer {name!r} has ids up to {highest}, but the network has only {width} logits. "
                f"Take the tokenizer that belongs to the network, or a network with at least {highest + 1} logits."
            )
        eos_id = next((i for i in (tokenizer.eos_token_id, tokenizer.sep_token_id) if i is not None), None)
        pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else eos_id
        if eos_id is None or pad_id is None:
            raise InvalidTokenizer(
                f"The tokenizer {name!r} has no eos and no sep token, so an answer could not end. Add one of them."
            )
        added = tokenizer.added_tokens_decoder.items()
        reserved = {*tokenizer.all_special_ids, *(i for i, token in added if token.special)}
        ordinary = [i for word, i in tokenizer.get_vocab().items() if i not in reserved and not _UNUSED.fullmatch(word)]
        end_id = eos_id if end_id is None else end_id
        return cls(width, highest + 1, tokenizer.mask_token_id, pad_id, end_id, torch.tensor(sorted(ordinary)))


class Canvas(NamedTuple):
    """Rows of text and which of their slots may change: a training row, a packed row, or a prompt with an empty answer.

    `segment` is 0 on padding and counts the documents of a row from 1; positions restart with each segment.
    `editable` slots are the ones the process may noise, the sampler may write and the loss may score.
    """

    ids: Int[Tensor, "B L"]
    editable: Bool[Tensor, "B L"]
    segment: Int[Tensor, "B L"]

    @classmethod
    def left_padded(cls, documents: Sequence[tuple[Sequence[int], Sequence[bool]]], pad_id: int) -> Canvas:
        """One document (ids, editable) per row, all ending in the same column, so that answers line up."""
        length = max(len(ids) for ids, _ in documents)
        blank = [(length - len(ids)) for ids, _ in documents]
        return cls(
            torch.tensor([[pad_id] * n + [*ids] for n, (ids, _) in zip(blank, documents, strict=True)]),
            torch.tensor([[False] * n + [*editable] for n, (_, editable) in zip(blank, documents, strict=True)]),
            torch.tensor([[0] * n + [1] * (length - n) for n in blank]),
        )

    def to(self, device: torch.device | str) -> Canvas:
        return Canvas(*(field.to(device) for field in self))

    def position(self) -> Int[Tensor, "B L"]:
        """Place of each slot in its own document, counted from 0 (and from the start of the padding)."""
        return positions(self.segment)

    def heads(self) -> Bool[Tensor, "B L"]:
        """The first slot of each document: as many as there are documents."""
        return (self.position() == 0) & (self.segment > 0)

    def per_document(self, marked: Bool[Tensor, "B L"]) -> Int[Tensor, "B L"]:
        """How many marked slots the document of each slot has."""
        segment = self.segment.long()
        counts = segment.new_zeros(segment.shape[0], segment.shape[1] + 1)
        return counts.scatter_add(1, segment, marked.long()).gather(1, segment)


class SoftTokens(NamedTuple):
    """Slots that show a mixture of tokens: M slots `at` (indices into B·L), each a weighted sum of R tokens.

    What the weights of a slot leave of 1 is its `rest`, spread evenly over the whole vocabulary.
    """

    at: Int[Tensor, " M"]
    ids: Int[Tensor, "M R"]
    weight: Float[Tensor, "M R"]
    rest: Float[Tensor, " M"]


class Corrupted(NamedTuple):
    """One noised batch: the clean rows, what the network reads, the time of each slot, and the slots it is asked about.

    `t` is constant within a document. `asked` is recorded here, not derived from `x_t`, because a slot that was
    replaced by a random token or kept as it was (BERT's 80/10/10) looks like any other. Where there are `soft` tokens,
    the network reads them in place of `x_t`.
    """

    clean: Canvas
    x_t: Int[Tensor, "B L"]
    t: Float[Tensor, "B L"]
    asked: Bool[Tensor, "B L"]
    soft: SoftTokens | None = None

    def slots(self) -> Slots:
        """The asked slots, flattened in row order."""
        return Slots.of(self.asked, self.clean.ids, self.x_t, self.t)


class Slots(NamedTuple):
    """The N slots in question, flattened; `at` points into B·L. All work after the network happens on these alone."""

    x0: Int[Tensor, " N"]
    x_t: Int[Tensor, " N"]
    t: Float[Tensor, " N"]
    at: Int[Tensor, " N"]

    @classmethod
    def of(
        cls, asked: Bool[Tensor, "B L"], x0: Int[Tensor, "B L"], x_t: Int[Tensor, "B L"], t: Float[Tensor, "B L"]
    ) -> Slots:
        at = asked.flatten().nonzero().squeeze(-1)
        return cls(x0.flatten()[at], x_t.flatten()[at], t.flatten()[at], at)

    def chunk(self, start: int, stop: int) -> Slots:
        """The slots start..stop, as views."""
        return Slots(*(field[start:stop] for field in self))


@dataclass(frozen=True)
class Step:
    """One reverse move, for streaming, logging and tests.

    The canvas went from time `t` to `s`, no noisier (equal on a plateau); `x` is its new state; `changed` marks the
    slots that moved, and `confidence` is the probability the network gave to the token now in each (0 elsewhere).
    """

    index: int
    t: float
    s: float
    x: Int[Tensor, "B L"]
    changed: Bool[Tensor, "B L"]
    confidence: Float[Tensor, "B L"]


Trajectory = Iterator[Step]


def positions(segment: Int[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    """Counts each run of equal segments from 0."""
    place = torch.arange(segment.shape[-1], device=segment.device).expand_as(segment)
    starts = torch.ones_like(segment, dtype=torch.bool)
    starts[:, 1:] = segment[:, 1:] != segment[:, :-1]
    return place - torch.where(starts, place, 0).cummax(-1).values
