"""What each token of a half-written text looks like, so that the pieces put side by side are the text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from dllm_lightning.data.template import ChatTemplate

BROKEN = "\N{REPLACEMENT CHARACTER}"
LONGEST = 4  # bytes, and so at most tokens, of one character


class Pieces:
    """The visible piece of every slot; None where it is still hidden.

    A token looks different beside another one (`##ing`, a space that is dropped), and one character may need several
    tokens: so each is decoded with its left neighbour, or with a plain word where that is still hidden.
    """

    def __init__(self, template: ChatTemplate) -> None:
        self.hidden_id: Any = template.tokenizer.mask_token_id
        self.end_id, self.control_ids, self._decode = template.end_id, template.control_ids, template.plain.decode
        self._word = template.plain.encode(["a"])[0][-1:]
        self._beside = lru_cache(maxsize=65536)(self._beside_uncached)

    def __call__(self, ids: Sequence[int]) -> list[str | None]:
        """Control tokens are empty, and so are all but the first token of a character."""
        pieces: list[str | None] = [None if i == self.hidden_id else "" for i in ids]
        place = 0
        while place < len(ids):
            if ids[place] in self.control_ids:
                place += 1
                continue
            alone = place == 0 or ids[place - 1] in self.control_ids
            left = tuple(self._word if alone else ids[place - 1 : place])
            size = self._size(ids, place, left)
            pieces[place] = self._beside(left, tuple(ids[place : place + size]))
            place += size
        return pieces

    def _size(self, ids: Sequence[int], place: int, left: tuple[int, ...]) -> int:
        """How many tokens from here on make whole characters; 1 where none do (yet)."""
        for size in range(1, LONGEST + 1):
            group = tuple(ids[place : place + size])
            if len(group) < size or not self.control_ids.isdisjoint(group):
                break
            if BROKEN not in self._beside(left, group):
                return size
        return 1

    def _beside_uncached(self, left: tuple[int, ...], ids: tuple[int, ...]) -> str:
        before, both = self._decode(left), self._decode(left + ids)
        return both.removeprefix(before) if both.startswith(before) else self._decode(ids)
