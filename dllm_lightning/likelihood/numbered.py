"""Noise that belongs to numbered texts: it does not depend on the batch, and texts of one number share it.

Validation ties noise to what a document says. Here it is tied to a number, for two reasons: two documents that happen
to read the same are two observations and get independent noise, as the errors assume; and the answers to choose from
get one number together, so that what differs between their scores is the answers and not their luck.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_lightning.types import Canvas


@dataclass
class Numbered:
    """Draw `draw` of `draws` corruptions of texts with these `numbers`, one text per row (see `Draws`).

    The draws come in pairs, draws / 2 strata of (0, 1] with two draws in each: one alone would have no spread to judge
    the error by. The n-th editable slot of each text of one number gets the same noise, wherever it lies. One object
    serves one batch: what `uniform` gives depends on how often it was called.

    Raises ValueError unless 0 <= draw < draws, and draws is 1 or even.
    """

    seed: int
    draw: int
    draws: int
    numbers: Sequence[int]
    _calls: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.draw < self.draws:
            raise ValueError(f"There is no draw={self.draw} among draws={self.draws}: they count from 0.")
        if self.draws > 1 and self.draws % 2:
            raise ValueError(f"draws={self.draws} is odd, and draws come in pairs: give an even number, or 1.")

    def times(self, canvas: Canvas) -> Float[Tensor, "B L"]:
        """One time in (0, 1] for each text."""
        jitter, strata = self._drawn(0, 1).to(canvas.ids.device), max(1, self.draws // 2)
        return ((self.draw // 2 + 1.0 - jitter) / strata).expand(canvas.ids.shape)

    def uniform(self, canvas: Canvas) -> Float[Tensor, "B L"]:
        self._calls += 1
        editable = canvas.editable.long()
        others = editable.sum(1, keepdim=True) + (1 - editable).cumsum(1)
        place = torch.where(canvas.editable, editable.cumsum(1), others) - 1
        return self._drawn(self._calls, canvas.ids.shape[1]).to(place.device).gather(1, place)

    def _drawn(self, use: int, count: int) -> Float[Tensor, "B count"]:
        """Numbers in [0, 1), a row for each text; a smaller count is the beginning of a larger one."""
        rows = (
            hashlib.shake_128(f"{self.seed} {self.draw} {n} {use}".encode()).digest(4 * count) for n in self.numbers
        )
        words = torch.frombuffer(bytearray(b"".join(rows)), dtype=torch.int32).view(len(self.numbers), count)
        return (words & 0xFFFFFF).float() * 2.0**-24
