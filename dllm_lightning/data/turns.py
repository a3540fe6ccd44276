"""Conversations of any number of turns, told apart by control ids alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from dllm_lightning.data.jinja import jinja
from dllm_lightning.data.messages import ROLES
from dllm_lightning.data.template import UNUSED, ChatTemplate, Turn
from dllm_lightning.types import InvalidTokenizer


@dataclass(frozen=True, eq=False)
class Turns(ChatTemplate):
    """`[CLS]<user>{question}<end><assistant>{answer}<end>`: one id opens a turn and says whose it is, one id ends it.

    `system`, `user`, `assistant` and `end` name tokens of the tokenizer. Those not named are its first unused rows
    (`[unused0]` and on, in ModernBERT and BERT); a tokenizer without such rows needs them named. [CLS] stands once at
    the start, if the tokenizer has it.
    """

    system: str | None = None
    user: str | None = None
    assistant: str | None = None
    end: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        ids = {*self._ids.values()}
        if len(ids) < len(self._ids) or ids & {self.tokenizer.mask_token_id, self.tokenizer.unk_token_id}:
            raise ValueError(
                f"The markers {self._words} must be four different tokens, none of them the mask or the unknown one."
            )

    @property
    def end_id(self) -> int:
        return self._ids["end"]

    @property
    def markers(self) -> frozenset[int]:
        return frozenset(self._ids.values())

    @property
    def jinja(self) -> str:
        """This template as a tokenizer's own, for ordinary text: one that spells a marker would become the marker."""
        opens = {role: self._words[role] for role in ROLES}
        return jinja(self.tokenizer.cls_token or "", opens, self._words["end"], opens["assistant"])

    def turns(self, roles: tuple[str, ...]) -> tuple[Turn, ...]:
        start = () if self.tokenizer.cls_token_id is None else (self.tokenizer.cls_token_id,)
        end = (self.end_id,)
        return tuple(
            Turn((*(start if place == 0 else ()), self._ids[role]), "", end) for place, role in enumerate(roles)
        )

    @cached_property
    def _words(self) -> dict[str, str]:
        named = {marker: getattr(self, marker) for marker in (*ROLES, "end")}
        rows = sorted(filter(UNUSED.fullmatch, self.tokenizer.get_vocab()), key=lambda word: int(word[7:-1]))
        unused = (word for word in rows if word not in named.values())
        words = {marker: word or next(unused, None) for marker, word in named.items()}
        if missing := [marker for marker, word in words.items() if word is None]:
            raise InvalidTokenizer(
                f"The tokenizer {self.name!r} has no unused rows to mark {', '.join(missing)} with. Name tokens "
                f"of its own (data.template.{missing[0]}='<|{missing[0]}|>'), or take data/template=original."
            )
        return {marker: str(word) for marker, word in words.items()}

    @cached_property
    def _ids(self) -> dict[str, int]:
        vocabulary = self.tokenizer.get_vocab()
        for marker, word in self._words.items():
            if word not in vocabulary:
                raise InvalidTokenizer(
                    f"The {marker} marker {word!r} is not a token of {self.name!r}. "
                    f"Name one that is, or add it with add_special_tokens."
                )
        return {marker: int(vocabulary[word]) for marker, word in self._words.items()}
