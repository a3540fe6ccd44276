"""What a network has to do: read noised ids or soft tokens, and answer at the slots it is asked about, nowhere else.

The projection to K = 50,000 tokens is most of the work of a small network and most of the memory of any. So it runs
only at the slots in `at`, and where a score per slot is all that is wanted (training, validation) in chunks whose
logits are gone before the next chunk's exist.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dllm_lightning.backbone.cache.store import CannotRemember, Store
from dllm_lightning.backbone.chunked import Score, score_in_chunks
from dllm_lightning.types import SoftTokens


class CannotPack(ValueError):
    """The network would let packed documents see each other."""


class Backbone(nn.Module, ABC):
    """A bidirectional network over a vocabulary of `width` tokens.

    `chunk` is the number of slots whose logits exist at one time while scoring.
    """

    chunk: int
    packs: bool
    """Whether several documents may share a row without seeing each other."""

    @property
    @abstractmethod
    def width(self) -> int:
        """K, the number of logits."""

    @property
    def longest(self) -> int | None:
        """The longest row that can be read, where there is such a limit."""
        return None

    @property
    @abstractmethod
    def layers(self) -> list[nn.Module]:
        """The repeated blocks, which sharding treats one by one."""

    @abstractmethod
    def encode(
        self,
        inputs: Int[Tensor, "B L"],
        level: Float[Tensor, "B L"],
        segment: Int[Tensor, "B L"],
        soft: SoftTokens | None = None,
    ) -> Float[Tensor, "B L D"]:
        """The state of each slot. Documents do not see each other or the padding (segment 0); positions restart.

        `level` is the noise level 1 - alpha of each slot, which a network without time conditioning does not read.
        Slots that `soft` speaks of show its mixtures in place of their `inputs`.
        """

    def store(self) -> Store:
        """An empty store, for calls that compute some columns and take the others as they were.

        Raises CannotRemember where keys and values are not to be had.
        """
        raise CannotRemember(
            f"{type(self).__name__} keeps no keys and values from one call to the next, so it cannot be given a cache: "
            f"leave it out (cache=none), or use a ModernBERT backbone."
        )

    def encode_anew(
        self, inputs: Int[Tensor, "R L"], level: Float[Tensor, "R L"], segment: Int[Tensor, "R L"], store: Store
    ) -> Float[Tensor, "R C D"]:
        """The state of each slot in the columns that the store is looking at: all L of them, or some.

        Those see the others through the keys and values in the store, and theirs take their places there.
        """
        raise CannotRemember(f"{type(self).__name__} has no store.")

    @property
    @abstractmethod
    def head(self) -> Callable[[Float[Tensor, "N D"]], Float[Tensor, "N K"]]:
        """From states to logits, as a module whose parameters may be tied to the embedding."""

    @property
    @abstractmethod
    def decoder(self) -> nn.Linear:
        """The last part of `head`; its weight may be tied to the embedding."""

    def features(self, states: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """What the decoder reads: a hook catches it, and lets the decoder read nothing."""
        caught: list[Tensor] = []

        def catch(decoder: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
            caught.append(inputs[0])
            return (inputs[0][:0],)

        hook = self.decoder.register_forward_pre_hook(catch)
        try:
            self.head(states)
        finally:
            hook.remove()
        return caught[0]

    def forward(
        self,
        inputs: Int[Tensor, "B L"],
        level: Float[Tensor, "B L"],
        segment: Int[Tensor, "B L"],
        at: Int[Tensor, " N"],
        soft: SoftTokens | None = None,
        score: Score | None = None,
        weight: Float[Tensor, " N"] | None = None,
        store: Store | None = None,
    ) -> Tensor | tuple[Float[Tensor, ""], Float[Tensor, "N M"]]:
        """Logits (N K) at the slots `at` (indices into B·L); or, with a `score`, what it makes of them.

        `score(logits, start, stop)` gives M values for each of the slots start..stop. Returned are the weighted sum of
        the first of them, to descend on, and all of them without gradient. `weight` is 1 unless given.

        With a `store` only some C columns are computed, and `at` are indices into B·C.
        """
        if store is None:
            states = self.encode(inputs, level, segment, soft)
        else:
            states = self.encode_anew(inputs, level, segment, store)
        states = states.flatten(0, 1)[at]
        if score is None:
            return self.head(states)
        weight = torch.ones(len(at), device=at.device) if weight is None else weight
        return score_in_chunks(self.decoder, self.features(states), score, weight, self.chunk)
