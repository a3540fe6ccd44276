"""The keys and values of whole rows, of which a call computes some columns anew.

A Hugging Face network hands unknown keywords down to its attention function, so a store travels along with a call to
the only place where it is needed. There the fresh keys and values of the columns that were computed take their places
among those of all others. Rotary positions have been applied by then: what is stored is never turned again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

FULL, SLIDING = "full_attention", "sliding_attention"
"""The two kinds of layers, by transformers' names."""


class CannotRemember(ValueError):
    """The network does not keep keys and values from one call to the next."""


@dataclass(frozen=True, eq=False)
class View:
    """The C columns that a call computes, in rows whose other columns are in the store. It lives on the host.

    `own` says which of them each row takes as new, where they are not the same in all rows: a column that a row
    computes only for the sake of its neighbours leaves no trace in it. `alone`: every row holds one document and no
    padding.
    """

    columns: Int[Tensor, " C"]
    own: Bool[Tensor, "R C"] | None
    alone: bool

    @classmethod
    def of(cls, own: Bool[Tensor, "R L"], alone: bool) -> View:
        """The columns that any row wants."""
        columns = own.any(0).nonzero().squeeze(1)
        own = own[:, columns]
        return cls(columns, None if own.all() else own, alone)

    @property
    def span(self) -> tuple[int, int]:
        """The first column, and the one after the last."""
        return int(self.columns[0]), int(self.columns[-1]) + 1

    def indices(self, device: torch.device) -> slice | Int[Tensor, " C"]:
        """What picks the columns: a slice where they have no gaps."""
        low, high = self.span
        gaps = high - low > len(self.columns)
        return self.columns.to(device, non_blocking=True) if gaps else slice(low, high)


class Sight(NamedTuple):
    """What a view means to a network, on its device: who sees whom, and where.

    `keys` are the columns that each kind of layer looks at, and `masks` (R 1 C keys) who sees which of them.
    """

    columns: slice | Int[Tensor, " C"]
    positions: Int[Tensor, "R C"]
    own: Bool[Tensor, "R 1 C 1"] | None
    keys: dict[str, slice]
    masks: dict[str, Tensor | None]


class Store:
    """Keys and values (R H L D/H) of every layer.

    Without a `view` a call computes all columns, and they are kept; with one, its columns are, among what is here. The
    `sight` is made of a view by the network, and stays as long as the view does.
    """

    def __init__(self) -> None:
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.view: View | None = None
        self.sight: Sight | None = None

    def look(self, view: View | None) -> None:
        """What the next call computes."""
        if view is not self.view:
            self.view, self.sight = view, None

    def keep(self, rows: Int[Tensor, " R"]) -> None:
        """Only some of the rows stay, counted among those that are here."""
        for kept in (self.keys, self.values):
            for layer, tensor in kept.items():
                kept[layer] = tensor.index_select(0, rows.to(tensor.device, non_blocking=True))

    def join(
        self, layer: int, kind: str, key: Float[Tensor, "R H C d"], value: Float[Tensor, "R H C d"]
    ) -> tuple[Float[Tensor, "R H keys d"], Float[Tensor, "R H keys d"]]:
        """What a layer sees: these keys and values in their places, and around them what was stored."""
        if self.view is None:
            self.keys[layer], self.values[layer] = key.contiguous(), value.contiguous()
            return key, value
        sight = self.sight
        assert sight is not None
        seen = sight.keys[kind]
        found = []
        for stored, fresh in ((self.keys[layer], key), (self.values[layer], value)):
            if sight.own is not None:
                fresh = torch.where(sight.own, fresh, stored[:, :, sight.columns])
            if isinstance(sight.columns, slice):
                stored[:, :, sight.columns] = fresh
            else:
                stored.index_copy_(2, sight.columns, fresh)
            found.append(stored[:, :, seen])
        return found[0], found[1]


@cache
def remembering(kernel: str) -> str:
    """The name by which transformers finds an attention kernel that looks into the store of its call, if it has one.

    Its masks go by the same name: a kernel without any is taken for one that wants none, and padding and windows are
    gone without a word.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.models.modernbert.modeling_modernbert import eager_attention_forward

    inner: Callable[..., Any] = AttentionInterface().get(kernel, eager_attention_forward)

    def attend(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, store: Store | None = None, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        if store is not None:
            kind = FULL if module.sliding_window is None else SLIDING
            key, value = store.join(module.layer_idx, kind, key, value)
        return inner(module, query, key, value, mask, **options)

    name = f"{kernel}_with_store"
    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, AttentionMaskInterface()[kernel])
    return name
