"""Where the randomness of a corruption comes from: places of the global batch in training, documents in validation.

Both are integer hashing, so neither has a state, and no other thing can shift them. While training, noise is a pure
function of (seed, step, row of the global batch, place in the row): a run that was stopped goes on with the noise it
would have had, and two processes that share a batch draw what one would have drawn. A validation score should depend
on the weights and the data alone, so its noise is a function of (seed, draw, document, place in the document).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dllm_lightning.types import Canvas


@runtime_checkable
class Draws(Protocol):
    """A source of noise for one canvas."""

    def times(self, canvas: Canvas) -> Float[Tensor, "B L"]:
        """One time in (0, 1] per document, spread over its slots; what padding gets means nothing."""
        ...

    def uniform(self, canvas: Canvas) -> Float[Tensor, "B L"]:
        """Fresh numbers in [0, 1), one per slot; each call is independent of the ones before."""
        ...


@dataclass(frozen=True)
class Random:
    """Numbers from a generator: never the same twice. Without one they come from torch's own."""

    generator: torch.Generator | None = None

    def times(self, canvas: Canvas) -> Float[Tensor, "B L"]:
        """Stratified: with n documents, one time falls in each n-th of (0, 1], in random order."""
        heads, place = canvas.heads(), self.generator.device if self.generator else canvas.ids.device
        count = int(heads.sum())
        order = torch.randperm(count, generator=self.generator, device=place)
        jitter = torch.rand(count, generator=self.generator, device=place, dtype=torch.float64)
        drawn = torch.cat([(order + 1.0 - jitter) / count, jitter.new_ones(1)]).float().to(heads.device)
        document = (heads.flatten().cumsum(0) - 1).clamp(min=0).reshape(heads.shape)
        return drawn[document]

    def uniform(self, canvas: Canvas) -> Float[Tensor, "B L"]:
        return torch.rand(canvas.ids.shape, generator=self.generator, device=canvas.ids.device)


@dataclass
class PerPlace:
    """Numbers that belong to places of a global batch of `rows` rows; the canvas holds those from number `first` on.

    However the rows are dealt out to processes and micro-batches, each gets the same noise. One object serves one
    batch: what `uniform` gives depends on how often it was called.

    Raises ValueError for a canvas that reaches beyond the global batch.
    """

    seed: int
    step: int
    first: int
    rows: int
    _calls: int = field(default=0, init=False, repr=False)

    def times(self, canvas: Canvas) -> Float[Tensor, "B L"]:
        """Stratified over the rows of the global batch, and evenly spaced over the documents that share a row."""
        number = self._numbers(canvas)
        generator = torch.Generator().manual_seed(self.seed_of("strata"))
        stratum = torch.randperm(self.rows, generator=generator).to(number.device)[number]
        jitter = _fraction(_mix(number ^ _salt(self.seed, self.step, "times"))).double()
        documents = canvas.segment.amax(1).clamp(min=1)
        turn = (stratum + jitter)[:, None] / self.rows + (canvas.segment - 1).clamp(min=0) / documents[:, None].double()
        return (1.0 - turn.frac()).float()

    def uniform(self, canvas: Canvas) -> Float[Tensor, "B L"]:
        self._calls += 1
        row = _mix(self._numbers(canvas) ^ _salt(self.seed, self.step, self._calls))
        place = torch.arange(canvas.ids.shape[1], device=row.device)
        return _fraction(_mix(row[:, None] ^ _mix(place)))

    def uniforms(self, canvas: Canvas, at: Int[Tensor, " M"], count: int) -> Float[Tensor, "k M"]:
        """What `count` calls of `uniform` give at the slots `at`, indices into B·L."""
        salts = torch.tensor([_salt(self.seed, self.step, self._calls + 1 + i) for i in range(count)])
        self._calls += count
        rows = _mix(self._numbers(canvas) ^ salts[:, None].to(at.device))
        length = canvas.ids.shape[1]
        return _fraction(_mix(rows[:, at // length] ^ _mix(at % length)))

    def seed_of(self, use: int | str) -> int:
        """A seed for what else draws in this step."""
        return _salt(self.seed, self.step, use) & 0x7FFFFFFFFFFFFFFF

    def _numbers(self, canvas: Canvas) -> Int[Tensor, " B"]:
        """The number of each row in the global batch."""
        count = canvas.ids.shape[0]
        if not 0 <= self.first <= self.rows - count:
            raise ValueError(f"A batch of {count} rows from row {self.first} on is not within {self.rows} rows.")
        return torch.arange(self.first, self.first + count, device=canvas.ids.device)


@dataclass
class PerDocument:
    """Numbers that belong to the documents: equal documents get equal noise, in every run, batch and place.

    `draw` of `draws` independent (and, in time, stratified) corruptions of each document, counted from 0.
    One object serves one batch: what `uniform` gives depends on how often it was called.

    Raises ValueError unless 0 <= draw < draws.
    """

    seed: int
    draw: int = 0
    draws: int = 1
    _calls: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.draw < self.draws:
            last = self.draws - 1
            raise ValueError(f"There is no draw={self.draw} among draws={self.draws}: they count from 0 to {last}.")

    def uniform(self, canvas: Canvas) -> Float[Tensor, "B L"]:
        self._calls += 1
        key = self._documents(canvas) + _mix(torch.tensor(self._calls, device=canvas.ids.device))
        return _fraction(_mix(key ^ _mix(canvas.position())))

    def times(self, canvas: Canvas) -> Float[Tensor, "B L"]:
        """One time in (0, 1] per document, spread over its slots; over the draws each stratum is visited once."""
        jitter = _fraction(_mix(self._documents(canvas)))
        return (self.draw + 1.0 - jitter) / self.draws

    def _documents(self, canvas: Canvas) -> Int[Tensor, "B L"]:
        """A 64-bit number per document, spread over its slots: seed, draw and every (place, id) pair went into it."""
        words = _mix(_mix(canvas.ids) ^ (canvas.position() + 1))
        sums = words.new_zeros(words.shape[0], words.shape[1] + 1).scatter_add(1, canvas.segment.long(), words)
        salt = self.seed * 1_000_003 + self.draw
        return _mix(sums.gather(1, canvas.segment.long()) ^ _mix(torch.tensor(salt, device=words.device)))


def _salt(*key: int | str) -> int:
    """A signed 64-bit number that depends on the key and on nothing else."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big", signed=True)


def _mix(x: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """The finaliser of splitmix64 (Steele et al., 2014): a bijection of 64-bit integers; each bit stirs all others."""
    x = x.long() + -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number; sums and products wrap around
    x = (x ^ _shift(x, 30)) * -4658895280553007687
    x = (x ^ _shift(x, 27)) * -7723592293110705685
    return x ^ _shift(x, 31)


def _shift(x: Int[Tensor, "*n"], bits: int) -> Int[Tensor, "*n"]:
    """Logical shift to the right; torch's own copies the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _fraction(x: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The top 24 bits as a float32 in [0, 1), exactly."""
    return _shift(x, 40).float() * 2.0**-24
