"""Rows of text to documents: tokenised, cut to length, and counted.

Every row that is not used is counted with its reason. Nothing here knows where rows come from, or where documents go.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from dllm_lightning.data import messages, plain_text
from dllm_lightning.data.messages import Unread
from dllm_lightning.data.template import ChatTemplate, Document, answer_spans

Overlong = Literal["cut", "whole", "drop"]
CHUNK = 1000  # rows tokenised together
TOO_LONG, NO_ROOM = "longer than max_length", "no answer fits into max_length"


@dataclass
class Counts:
    """What became of the rows of a source."""

    rows: int = 0
    used: int = 0
    cut_after: int = 0  # rows that now end with an earlier answer
    cut_inside: int = 0  # rows whose last answer has lost its end
    tokens: int = 0
    answer_tokens: int = 0  # of the used rows, end markers included, tail not
    fitting: int = 0  # answer tokens within the first max_length tokens of every usable row
    tail: int = 0  # end tokens added after the last answers
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def wrong(self) -> int:
        """Rows dropped for what they are, and not for their length."""
        return self.dropped.total() - self.dropped[TOO_LONG] - self.dropped[NO_ROOM]

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{name: value + getattr(other, name) for name, value in vars(self).items()})


class Encoded(NamedTuple):
    """Some documents end to end: their ids, which are answers, how long each is, and which row it was."""

    ids: np.ndarray
    editable: np.ndarray
    lengths: np.ndarray
    rows: np.ndarray
    counts: Counts


@dataclass(frozen=True)
class Encoder:
    """Rows to documents of at most `max_length` ids.

    A longer row is, by `overlong`,

    - "cut": everything that fits is kept, up to the last answer in it; that answer may lose its end, and then has none;
    - "whole": kept up to the end of the last answer that fits whole;
    - "drop": dropped.

    `answer_length` fills the last answer with end tokens up to that many slots, as far as `max_length` allows, and
    these are learnt too: a model that is given more slots than it needs fills them with ends (LLaDA, arXiv:2502.09992).
    """

    template: ChatTemplate
    max_length: int
    overlong: Overlong = "cut"
    answer_length: int | None = None

    def __post_init__(self) -> None:
        if self.overlong not in get_args(Overlong):
            raise ValueError(f"overlong={self.overlong!r} is none of {', '.join(get_args(Overlong))}.")
        if self.max_length < 1 or (self.answer_length is not None and self.answer_length < 1):
            raise ValueError(f"max_length={self.max_length} and answer_length={self.answer_length} must be at least 1.")

    @cached_property
    def fingerprint(self) -> str:
        """Equal for encoders that give equal documents, in any process; another one when the code has changed."""
        used = {__name__, messages.__name__, plain_text.__name__}
        used |= {kind.__module__ for kind in type(self.template).__mro__} - {"builtins", "abc"}
        files = [getattr(sys.modules[name], "__file__", None) for name in sorted(used)]
        code = [Path(file).read_bytes() if file else os.urandom(16) for file in files]  # a notebook may have changed
        key = f"{self.template.fingerprint} {self.max_length} {self.overlong} {self.answer_length}".encode()
        return hashlib.sha256(b"".join([key, *code])).hexdigest()

    def __call__(self, rows: Sequence[Any], first: int = 0) -> Encoded:
        """Tokenises rows, of which the first has number `first` in its source."""
        counts = Counts(rows=len(rows))
        numbers, usable = [], []
        for number, row in enumerate(rows, first):
            if (fault := self.fault(row)) is None:
                numbers.append(number)
                usable.append(row["messages"])
            else:
                counts.dropped[fault] += 1
        ids: list[int] = []
        editable: list[bool] = []
        lengths, kept = [], []
        for number, whole in zip(numbers, self.template.encode(usable), strict=True):
            if (document := self.fit(whole, counts)) is not None:
                ids += document.ids
                editable += document.editable
                lengths.append(len(document.ids))
                kept.append(number)
        counts.used, counts.tokens = len(kept), len(ids)
        counts.answer_tokens = sum(editable) - counts.tail
        arrays = np.array(ids, np.int32), np.array(editable, np.bool_), np.array(lengths, np.int32), np.array(kept, int)
        return Encoded(*arrays, counts)

    def fault(self, row: Any) -> str | None:
        """What is wrong with a row, however long it is, in a few words, or None."""
        if isinstance(row, Unread):
            return row.reason
        if not isinstance(row, Mapping):
            return "not a mapping"
        return self.template.fault(row.get("messages"))

    def fit(self, document: Document, counts: Counts) -> Document | None:
        """The document at its final length, or None if nothing of it can be used; counts what happened."""
        ids, editable = document
        spans = answer_spans(editable)
        counts.fitting += sum(editable[: self.max_length])
        if len(ids) <= self.max_length:
            tail = min((self.answer_length or 0) - (spans[-1][1] - spans[-1][0]), self.max_length - len(ids))
            if tail <= 0:
                return document
            counts.tail += tail
            return Document(ids + [self.template.end_id] * tail, editable + [True] * tail)
        if self.overlong == "drop":
            counts.dropped[TOO_LONG] += 1
            return None
        if self.overlong == "whole":
            fitting = [stop for _, stop in spans if stop <= self.max_length]
        else:
            fitting = [min(stop, self.max_length) for start, stop in spans if start < self.max_length]
        if not fitting:
            counts.dropped[NO_ROOM] += 1
            return None
        stop = fitting[-1]
        counts.cut_inside += editable[stop]  # the next id would still be the answer
        counts.cut_after += not editable[stop]
        return Document(ids[:stop], editable[:stop])


def tokenise(rows: Iterable[Any], encoder: Encoder, processes: int = 1) -> Iterator[Encoded]:
    """Encodes rows chunk by chunk, in order, with several processes if asked; holds only a few chunks at a time."""
    iterator = iter(rows)
    chunks = iter(lambda: list(islice(iterator, CHUNK)), [])
    numbered = ((chunk, number * CHUNK) for number, chunk in enumerate(chunks))
    if processes <= 1:
        yield from (encoder(chunk, first) for chunk, first in numbered)
        return
    fork: Any = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else None)
    with ProcessPoolExecutor(processes, fork, initializer=_take, initargs=(encoder,)) as pool:
        waiting = deque(pool.submit(_encode, *chunk) for chunk in islice(numbered, 2 * processes))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(_encode, *chunk) for chunk in islice(numbered, 1))


_taken: list[Encoder] = []


def _take(encoder: Encoder) -> None:
    """Gives a process its encoder once, not with every chunk."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _taken.append(encoder)


def _encode(rows: Sequence[Any], first: int) -> Encoded:
    return _taken[-1](rows, first)
