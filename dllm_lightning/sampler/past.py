"""The texts that each row has been, so that a walk can tell when it goes in circles."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor


class Past:
    """Remembers texts by fingerprints, sums of token times column number modulo 2^64.

    Being sums, those of all texts that differ in one token come without writing these down. That two texts share one
    by chance is as likely as guessing a 64-bit number.
    """

    def __init__(self, x: Int[Tensor, "B L"]) -> None:
        drawn = torch.randint(2**62, x.shape[1:], generator=torch.Generator().manual_seed(0))
        self._column = drawn.mul(2).add(1).to(x.device)
        self._prints = [self._print(x)]

    def add(self, x: Int[Tensor, "B L"]) -> None:
        self._prints.append(self._print(x))

    def holds(self, x: Int[Tensor, "B L"]) -> Bool[Tensor, "B 1"]:
        """Whether each row has been this text."""
        return self._known(self._print(x)[:, None])

    def holds_with(self, x: Int[Tensor, "B L"], y: Int[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
        """Whether each row of x has been itself but for y's token in this slot."""
        return self._known(self._print(x)[:, None] + (y.long() - x) * self._column)

    def _print(self, x: Int[Tensor, "B L"]) -> Int[Tensor, " B"]:
        return (x.long() * self._column).sum(1)

    def _known(self, prints: Int[Tensor, "B n"]) -> Bool[Tensor, "B n"]:
        return (torch.stack(self._prints)[:, :, None] == prints).any(0)
