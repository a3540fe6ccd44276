"""ModernBERT (arXiv:2412.13663) behind the Backbone protocol: packed rows, windows, and positions that restart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dllm_lightning.backbone.cache.store import FULL, SLIDING, CannotRemember, Sight, Store, View, remembering
from dllm_lightning.backbone.masked_lm import MaskedLM
from dllm_lightning.backbone.networks import InvalidBackbone
from dllm_lightning.types import SoftTokens, positions


class ModernBert(MaskedLM):
    """ModernBERT from transformers, unmodified: it is handed ready attention masks, which keep packed documents apart.

    Two slots see each other if they belong to one document; in the layers with a sliding window also if they are at
    most `local_attention // 2` apart. With flash attention the rows are unpadded into one long row of documents.
    """

    packs = True

    def _check(self) -> None:
        if self.network.config.model_type != "modernbert":
            raise InvalidBackbone(
                f"backbone.pretrained={self.network.config.name_or_path!r} is a {self.network.config.model_type}, "
                f"not a ModernBERT. Use backbone=masked_lm for it."
            )

    def encode(
        self,
        inputs: Int[Tensor, "B L"],
        level: Float[Tensor, "B L"],
        segment: Int[Tensor, "B L"],
        soft: SoftTokens | None = None,
    ) -> Float[Tensor, "B L D"]:
        read = self.read(inputs, level, soft)
        if self.attention == "flash_attention_2":
            return self._encode_unpadded(read, segment)
        masks = self._block_masks(segment) if self.attention == "flex_attention" else self._masks(segment)
        return self.network.model(**read, attention_mask=masks, position_ids=positions(segment)).last_hidden_state

    def store(self) -> Store:
        """Once it was asked for, the network's attention looks for a store in every call, and does without if none is
        there."""
        if self.attention not in ("sdpa", "eager"):
            raise CannotRemember(
                f"backbone.attention={self.attention} keeps no keys and values, so there is no cache with it: "
                f"use backbone.attention=sdpa, or cache=none."
            )
        self.network.config._attn_implementation = remembering(self.attention)
        return Store()

    def encode_anew(
        self, inputs: Int[Tensor, "R L"], level: Float[Tensor, "R L"], segment: Int[Tensor, "R L"], store: Store
    ) -> Float[Tensor, "R C D"]:
        if store.view is None:
            read, masks, places = self.read(inputs, level), self._masks(segment), positions(segment)
        else:
            store.sight = sight = store.sight or self._sight(store.view, segment)
            read = self.read(inputs[:, sight.columns], level[:, sight.columns])
            masks, places = sight.masks, sight.positions
        return self.network.model(**read, attention_mask=masks, position_ids=places, store=store).last_hidden_state

    @property
    def head(self) -> Callable[[Float[Tensor, "N D"]], Float[Tensor, "N K"]]:
        return lambda states: self.network.decoder(self.network.head(states))

    def features(self, states: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """Without a hook: head and decoder are two modules here."""
        return self.network.head(states)

    @property
    def _window(self) -> int:
        return int(self.network.config.local_attention) // 2

    def _sight(self, view: View, segment: Int[Tensor, "R L"]) -> Sight:
        """Layers with a window look no further than it reaches from the first and the last column."""
        device, length, (low, high) = segment.device, segment.shape[1], view.span
        columns = view.indices(device)
        keys = {FULL: slice(0, length), SLIDING: slice(max(0, low - self._window), min(length, high + self._window))}
        place = torch.arange(length, device=device)
        near = (place[columns, None] - place[None, keys[SLIDING]]).abs() <= self._window
        together = segment[:, None, columns, None] == segment[:, None, None, :]
        masks = {FULL: None if view.alone else together, SLIDING: together[..., keys[SLIDING]] & near}
        own = None if view.own is None else view.own[:, None, :, None].to(device, non_blocking=True)
        return Sight(columns, positions(segment)[:, columns], own, keys, self._as_the_kernel_takes_them(masks))

    def _masks(self, segment: Int[Tensor, "B L"]) -> dict[str, Tensor | None]:
        return self._as_the_kernel_takes_them(self._dense_masks(segment))

    def _as_the_kernel_takes_them(self, masks: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
        """Eager attention adds the mask to its scores, where sdpa takes a truth value."""
        if self.attention != "eager":
            return dict(masks)
        least = torch.finfo(torch.float32).min
        return {name: None if mask is None else torch.where(mask, 0.0, least) for name, mask in masks.items()}

    def _dense_masks(self, segment: Int[Tensor, "B L"]) -> dict[str, Tensor]:
        """(B 1 L L) each. Padding sees padding, so that no row is empty."""
        together = segment[:, None, :, None] == segment[:, None, None, :]
        place = torch.arange(segment.shape[1], device=segment.device)
        near = (place[:, None] - place[None, :]).abs() <= self._window
        return {FULL: together, SLIDING: together & near}

    def _block_masks(self, segment: Int[Tensor, "B L"]) -> dict[str, Any]:
        from torch.nn.attention.flex_attention import create_block_mask

        def together(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return segment[b, q] == segment[b, k]

        def nearby(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return together(b, h, q, k) & ((q - k).abs() <= self._window)

        rows, length = segment.shape
        make = {FULL: together, SLIDING: nearby}
        return {
            name: create_block_mask(rule, rows, None, length, length, device=str(segment.device))
            for name, rule in make.items()
        }

    def _encode_unpadded(self, read: dict[str, Tensor], segment: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """All documents of the batch in one row, end to end; the kernel is told where each begins."""
        real = segment > 0
        place = positions(segment)[real]
        starts = (place == 0).nonzero().squeeze(-1)
        bounds = torch.cat([starts, starts.new_tensor([len(place)])]).int()
        longest = int(bounds.diff().max()) if len(starts) else 0
        states = self.network.model(
            **{name: value[real][None] for name, value in read.items()},
            attention_mask={FULL: None, SLIDING: None},
            position_ids=place[None],
            cu_seq_lens_q=bounds,
            cu_seq_lens_k=bounds,
            max_length_q=longest,
            max_length_k=longest,
        ).last_hidden_state[0]
        return states.new_zeros(*segment.shape, states.shape[-1]).masked_scatter(real[..., None], states)
