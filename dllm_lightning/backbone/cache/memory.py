"""What is remembered of one walk: which rows and columns, and for how long. All decisions are made on the host."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dllm_lightning.backbone.cache.policy import Cache
from dllm_lightning.backbone.cache.store import Store, View
from dllm_lightning.types import Canvas


class Memory:
    """The store of a walk, and what its next call computes.

    Rows in which nothing is asked any more leave the store for good; if one comes back, all that are asked begin anew.
    """

    def __init__(self, cache: Cache, canvas: Canvas, store: Store) -> None:
        self.cache, self.store = cache, store
        self.slots = canvas.editable.cpu()
        self.alone = (canvas.segment == 1).all(1).cpu()
        self.rows = torch.empty(0, dtype=torch.long)
        self.own = self.before = torch.zeros_like(self.slots)
        self.age = 0

    def turn(self, asked: Bool[Tensor, "B L"], rows: Int[Tensor, " R"]) -> Store:
        """The store, looking at what a call computes that asks about these slots; `rows` are those that have any."""
        stay = torch.isin(rows, self.rows)
        if len(rows) == 0 or not stay.all() or self.age == self.cache.refresh_every:
            self.rows, self.age = rows, 0
            self.store.look(None)
        else:
            self._look(asked, rows)
        self.before, self.age = asked, self.age + 1
        return self.store

    def _look(self, asked: Bool[Tensor, "B L"], rows: Int[Tensor, " R"]) -> None:
        if fewer := len(rows) < len(self.rows):
            self.store.keep(torch.searchsorted(self.rows, rows))
            self.rows = rows
        here = asked[rows]
        own = here | self.cache.columns(self.slots[rows], here, self.before[rows])
        if self.store.view is None or fewer or not torch.equal(own, self.own):
            self.own = own
            self.store.look(View.of(own, bool(self.alone[rows].all())))
