"""Text with gaps as ids, and back: what is given stays, token by token and letter by letter.

The given pieces get the ids that they would have in running text, with words in the gaps. So a space before a gap
is no token of its own where a tokenizer writes it on the next word (`The` `Ġcapital`): it is given all the same, and
the first token in the gap says it once more. The text that comes out is put together of the pieces as they were given,
not as a tokenizer would spell them, and of what stands in the gaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dllm_lightning.data.asked import Asked, Question, Read
from dllm_lightning.data.gaps import Gapped
from dllm_lightning.data.messages import Message
from dllm_lightning.data.plain_text import PlainText
from dllm_lightning.data.template import ChatTemplate, Document, Turn

NEAR = 8
"""Tokens to the left and right of a gap that can have a say in how its text is spelt."""


@dataclass(frozen=True)
class Infill(Asked):
    """A text whose gaps are to be filled: the answer to a conversation, or without messages a text by itself.

    A gap of N gets N tokens, and the id that ends an answer is none of them: behind a gap the text goes on. Only where
    an answer ends in a gap, it may end earlier; `[[N]]` alone is just an answer of N slots.
    """

    source: str
    text: Gapped
    messages: Sequence[Message] = ()

    @property
    def title(self) -> str:
        return Question(self.messages).title if self.messages else self.source

    def slots(self, length: int) -> int:
        return sum(self.text.gaps)

    def extent(self, length: int) -> str:
        before = "The conversation, the text" if self.messages else "The text"
        return f"{before} and its {self.slots(length)} tokens to fill in make"

    def document(self, template: ChatTemplate, length: int) -> Document:
        before, turn = self._place(template)
        ids, editable, mask = [*before], [False] * len(before), template.tokenizer.mask_token_id
        for piece, gap in zip(self._ids(template, turn), (*self.text.gaps, 0), strict=True):
            ids += [*piece, *[mask] * gap]
            editable += [False] * len(piece) + [True] * gap
        end = () if self.ending(length) else turn.end
        return Document([*ids, *end], [*editable, *[False] * len(end)])

    def ending(self, length: int) -> int:
        return self.text.gaps[-1] if self.messages and not self.text.pieces[-1] else 0

    def given(self, template: ChatTemplate) -> int:
        _, turn = self._place(template)
        return len(self._ids(template, turn)[0])

    def read(self, template: ChatTemplate, ids: Sequence[int]) -> Read:
        """An id that ends an answer, should there be one, ends its gap."""
        _, turn = self._place(template)
        pieces = self._ids(template, turn)
        left, text, filled, tokens = [*pieces[0]], self.text.pieces[0], [], 0
        for gap, piece, after in zip(self.text.gaps, pieces[1:], self.text.pieces[1:], strict=True):
            written, ids = template.until_end(ids[:gap]), ids[gap:]
            words = between(template.plain, left, written, piece, text, after)
            filled.append(words if left else words.removeprefix(turn.lead))
            left += [*written, *piece]
            text += filled[-1] + after
            tokens += len(written)
        return Read(text, tokens, filled)

    def told(self) -> dict[str, Any]:
        return (Question(self.messages).told() if self.messages else {}) | {"fill": self.source}

    def _place(self, template: ChatTemplate) -> tuple[list[int], Turn]:
        """The ids before the text, and the turn that it is."""
        if self.messages:
            return template.until_answer(self.messages)
        return [*template.alone.before], template.alone

    def _ids(self, template: ChatTemplate, turn: Turn) -> list[list[int]]:
        """The ids of each piece."""
        first, *others = self.text.pieces
        texts = [turn.lead + (first.lstrip() if turn.trim else first), *others]
        texts[-1] = texts[-1].rstrip() if turn.trim else texts[-1]
        return [
            beside(template.plain, text, left=number > 0, right=number < len(others))
            for number, text in enumerate(texts)
        ]


def beside(plain: PlainText, text: str, left: bool, right: bool) -> list[int]:
    """The ids of a text in a longer one, that goes on to its left or right with words: here, with `a`."""
    word, spaced = plain.encode(["a", " a"])
    if right and text.endswith(" "):
        whole, shorter = plain.encode([f"{text}a", text[:-1]])
        text = text[:-1] if whole == shorter + spaced else text  # the space belongs to the word
    alone, inside = plain.encode([text, f"a{text}"])
    apart = left and not text[:1].isalnum() and inside[: len(word)] == word
    return inside[len(word) :] if apart else alone


def between(
    plain: PlainText, left: Sequence[int], ids: Sequence[int], right: Sequence[int], before: str, after: str
) -> str:
    """The text of ids between two others, `before` and `after`, such that the three side by side read well.

    Spaces that the tokenizer writes at their borders are left out where the neighbour has its own.
    """
    left, right = [*left[-NEAR:]], [*right[:NEAR]]
    head, both = plain.decode(left), plain.decode([*left, *ids])
    text = both.removeprefix(head) if both.startswith(head) else plain.decode(ids)
    if not head.endswith(before[len(before.rstrip()) :]):  # its last space is written by the gap, or not at all
        text = text.removeprefix(" ")
    if after and not after[0].isspace():
        rest = plain.decode([*left, *ids, *right]).removeprefix(both)
        text += rest[: len(rest) - len(rest.lstrip())]
    return text
