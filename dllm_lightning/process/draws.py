"""Where the randomness of a corruption comes from: a generator while training, the documents themselves in validation.

A validation score should depend on the weights and the data, and on nothing else. So its noise is a pure function of
(seed, draw, document, place in the document), computed by integer hashing: the same slots are hidden whatever the batch
size, the padding, the packing or the number of devices.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dllm_lightning.types import Canvas


@runtime_checkable
class Draws(Protocol):
    """A source of noise for one canvas."""

    def uniform(self, canvas: Canvas) -> Float[Tensor, "B L"]:
        """Fresh numbers in [0, 1), one per slot; each call is independent of the ones before."""
        ...


@dataclass(frozen=True)
class Random:
    """Numbers from a generator on the canvas's device: never the same twice."""

    generator: torch.Generator | None = None

    def uniform(self, canvas: Canvas) -> Float[Tensor, "B L"]:
        return torch.rand(canvas.ids.shape, generator=self.generator, device=canvas.ids.device)


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
