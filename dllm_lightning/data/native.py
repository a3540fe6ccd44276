"""The chat template that came with a tokenizer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from dllm_lightning.data.messages import BadRow
from dllm_lightning.data.template import ChatTemplate, Turn
from dllm_lightning.types import InvalidTokenizer

_ASKED = ("user", "assistant")
_CONTENT = re.compile("(\u2003?)\ue000(\\d+)\ue001(\u2003?)")  # private-use marks between em spaces


@dataclass(frozen=True, eq=False)
class Native(ChatTemplate):
    """The tokenizer's own `chat_template`, rendered once per sequence of roles with a mark in place of each content.

    What stands between the marks is control text, tokenised with special tokens; contents never pass through the
    template, so they stay plain text and their slots are known exactly, without `{% generation %}` marks. White space
    that the template trims from contents is trimmed here too, but a template that looks inside a content (to cut out
    a thought, say) sees only the mark.

    An answer ends with the first control token after it; what the template writes after the last answer's end is left
    out. A template that writes no such token after every answer, or that writes a conversation differently once it
    has gone on (with `answers="all"`), is refused.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tokenizer.chat_template:
            raise InvalidTokenizer(
                f"The tokenizer {self.name!r} has no chat template. Take data/template=turns or data/template=original."
            )
        for roles in (_ASKED, _ASKED * 2):
            try:
                self.turns(roles)
            except BadRow as bad:
                raise InvalidTokenizer(
                    f"The chat template of {self.name!r} does not serve: {bad.reason} ({', '.join(roles)}). "
                    f"Take data/template=turns or data/template=original."
                ) from bad

    @cached_property
    def end_id(self) -> int:
        *_, turn = self._around(_ASKED)
        return turn.end[-1]

    @cached_property
    def markers(self) -> frozenset[int]:
        """The added tokens that the template writes, also those that the tokenizer does not call special."""
        added = {i: token.content for i, token in self.tokenizer.added_tokens_decoder.items() if token.content.strip()}
        written = {i for gap in self._render(_ASKED)[0] for i in self.ids_of(gap)}
        return frozenset(written & added.keys())

    def turns(self, roles: tuple[str, ...]) -> tuple[Turn, ...]:
        turns = self._around(roles)
        ends = {turn.end[-1:] for turn, role in zip(turns, roles, strict=True) if role == "assistant"}
        if ends - {(self.end_id,)}:
            raise BadRow("the chat template ends answers differently", roles)
        if self.answers == "all":
            for stop in range(len(roles) - 2, 1, -2):
                if turns[:stop] != self._around(roles[:stop]):
                    raise BadRow("the chat template rewrites earlier turns, so take answers=last", roles)
        return turns

    def _around(self, roles: tuple[str, ...]) -> tuple[Turn, ...]:
        """The turns as rendered: every answer takes the ids after it up to the first control id."""
        gaps, trims = self._render(roles)
        introduced = [*(self.introduce(gap) for gap in gaps[:-1]), (self.ids_of(gaps[-1]), "")]
        turns: list[Turn] = []
        begun = 0  # ids of the gap before this content that belong to the answer before it
        for place, role in enumerate(roles):
            (ids, lead), (following, _) = introduced[place : place + 2]
            before, begun = ids[begun:], self._closing(following) if role == "assistant" else 0
            turns.append(Turn(before, lead, following[:begun], trims[place]))
        return tuple(turns)

    def _closing(self, ids: tuple[int, ...]) -> int:
        """How many ids of the text after an answer belong to it: up to the first control id."""
        for place, i in enumerate(ids, 1):
            if i in self.control_ids:
                return place
        raise BadRow("the chat template writes no special token after an answer", ids)

    def _render(self, roles: tuple[str, ...]) -> tuple[list[str], list[bool]]:
        """The control text before each content and after the last, and whether the template trims each content."""
        from jinja2 import TemplateError

        marks = [{"role": role, "content": f"\u2003\ue000{i}\ue001\u2003"} for i, role in enumerate(roles)]
        try:
            text = self.tokenizer.apply_chat_template(marks, tokenize=False, add_generation_prompt=False)
        except TemplateError as error:
            raise BadRow("the chat template refuses these roles", roles) from error
        parts = _CONTENT.split(text)
        if parts[2::4] != [str(i) for i in range(len(roles))]:
            raise BadRow("the chat template does not write every message once and in order", roles)
        return parts[::4], [not (left and right) for left, right in zip(parts[1::4], parts[3::4], strict=True)]
