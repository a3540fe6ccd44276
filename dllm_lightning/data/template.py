"""How a conversation becomes ids, which of them are the answer, and how an answer becomes text again.

A template knows the ids around each message (role markers, the end of an answer); the text of a message always goes
through `PlainText`, which cannot produce a control id. Nothing here knows about lengths, batches or noise.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import islice
from typing import Any, Literal, NamedTuple

from dllm_lightning.data.messages import BadRow, Message, validate, validate_prompt
from dllm_lightning.data.plain_text import PlainText
from dllm_lightning.types import InvalidTokenizer

UNUSED = re.compile(r"\[unused\d+\]")


class Document(NamedTuple):
    """One conversation as ids; `editable` marks the answers, each with the id that ends it."""

    ids: list[int]
    editable: list[bool]


class Turn(NamedTuple):
    """What stands around one message.

    `before` are the ids in front of it; `lead` is text glued to the left of its content before tokenising (a space, or
    nothing), so that its first word is the token it would be in running text; `end` closes it, and belongs to an
    answer. `trim` says that white space around the content is dropped.
    """

    before: tuple[int, ...]
    lead: str
    end: tuple[int, ...]
    trim: bool = False

    def text(self, content: str) -> str:
        """The content as it is tokenised."""
        return self.lead + (content.strip() if self.trim else content)


def answer_spans(editable: Sequence[bool]) -> list[tuple[int, int]]:
    """The answers of a document as (start, stop), ids that end them included: the runs of editable slots."""
    flags, spans, stop = bytes(editable), [], 0
    while (start := flags.find(1, stop)) >= 0:
        stop = flags.find(0, start)
        stop = len(flags) if stop < 0 else stop
        spans.append((start, stop))
    return spans


@dataclass(frozen=True, eq=False)
class ChatTemplate(ABC):
    """Messages to ids and back; `answers` says whether all answers of a conversation are trained or the last alone.

    The ids around a message depend on the roles alone, so a template is one function, `turns(roles)`, and the same
    function lays out a training row and a prompt: up to the answer, both are the same ids.
    """

    tokenizer: Any
    answers: Literal["all", "last"] = "all"

    def __post_init__(self) -> None:
        if self.answers not in ("all", "last"):
            raise ValueError(f"answers={self.answers!r} is neither 'all' nor 'last'.")
        if getattr(self.tokenizer, "backend_tokenizer", None) is None:
            raise InvalidTokenizer(
                f"The tokenizer {self.name!r} has no fast version. Use one whose folder holds a tokenizer.json."
            )
        if self.tokenizer.mask_token_id is None:
            raise InvalidTokenizer(
                f"The tokenizer {self.name!r} has no mask token to write an answer over. Use one that has it "
                f"(ModernBERT, BERT, RoBERTa), or add one with add_special_tokens({{'mask_token': '[MASK]'}})."
            )

    @property
    @abstractmethod
    def end_id(self) -> int:
        """The id that ends an answer; it is learnt like any other token of the answer."""

    @property
    @abstractmethod
    def markers(self) -> frozenset[int]:
        """The ids by which this template tells turns apart; no content may contain them."""

    @abstractmethod
    def turns(self, roles: tuple[str, ...]) -> tuple[Turn, ...]:
        """What stands around each message of a conversation with these roles; BadRow if they have no place here."""

    @property
    def jinja(self) -> str | None:
        """The same layout as a chat template of a tokenizer; None where the tokenizer has brought its own."""
        return None

    def encode(self, rows: Sequence[Sequence[Message]]) -> list[Document]:
        """Training rows to documents, all their texts in one call of the tokenizer; BadRow on the first unusable row.

        A last question without an answer is left out: it would teach nothing, and give away where the answer before it
        ends.
        """
        rows = [self._answered(row) for row in rows]
        layouts = [self._layout(tuple(message["role"] for message in row)) for row in rows]
        return list(self._documents(rows, layouts))

    def prompt(self, messages: Sequence[Message], length: int) -> Document:
        """The conversation so far and `length` masked, editable slots for its answer; BadRow unless a user ends it."""
        if length < 1:
            raise ValueError(f"length={length} leaves no slot for the answer; give at least 1.")
        ids, _ = self.until_answer(messages)
        slots = [self.tokenizer.mask_token_id] * length
        return Document(ids + slots, [False] * len(ids) + [True] * length)

    def until_answer(self, messages: Sequence[Message]) -> tuple[list[int], Turn]:
        """The ids of a conversation up to its next answer, and the turn this will be; BadRow unless a user ends it."""
        if (reason := validate_prompt(messages)) is not None:
            raise BadRow(reason, messages)
        *asked, answer = self._layout((*(message["role"] for message in messages), "assistant"))
        (document,) = self._documents([messages], [asked])
        return [*document.ids, *answer.before], answer

    @cached_property
    def alone(self) -> Turn:
        """What the tokenizer puts around a text that is no turn of a conversation: `[CLS]` and `[SEP]`, say."""
        (word,) = self.plain.encode(["a"])
        ids = list(self.tokenizer("a", add_special_tokens=True)["input_ids"])
        place = next((i for i in range(len(ids)) if ids[i : i + len(word)] == word), 0)
        return Turn(tuple(ids[:place]), "", tuple(ids[place + len(word) :]))

    def answer(self, ids: Iterable[int]) -> str:
        """The text of an answer's ids: up to the first id that ends it, without control ids (masks among them)."""
        *_, turn = self._layout(("user", "assistant"))
        return self.plain.decode(self.until_end(ids)).removeprefix(turn.lead)

    def until_end(self, ids: Iterable[int]) -> list[int]:
        """What belongs to an answer of the ids in its slots: those before what ends it."""
        written = [int(i) for i in ids]
        *_, turn = self._layout(("user", "assistant"))
        if self.end_id in written:
            written = written[: written.index(self.end_id)]
            if (close := list(turn.end[:-1])) and written[-len(close) :] == close:
                written = written[: -len(close)]
        return written

    def fault(self, messages: Any) -> str | None:
        """Why this template cannot train on a row, in a few words to count by, or None."""
        try:
            self._layout(tuple(message["role"] for message in self._answered(messages)))
        except BadRow as bad:
            return bad.reason
        return None

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """Ids that no content can produce: special tokens, unused rows, and the markers of this template."""
        added = self.tokenizer.added_tokens_decoder.items()
        special = {*self.tokenizer.all_special_ids, *(i for i, token in added if token.special)}
        unused = {i for word, i in self.tokenizer.get_vocab().items() if UNUSED.fullmatch(word)}
        other_roles = [word for name, word in self.tokenizer.special_tokens_map.items() if name != "unk_token"]
        unknown = set() if self.tokenizer.unk_token in other_roles else {self.tokenizer.unk_token_id}
        return frozenset((special | unused | self.markers) - unknown)  # a word the tokenizer does not know is content

    @cached_property
    def plain(self) -> PlainText:
        """The tokenizer for content."""
        return PlainText(self.tokenizer.backend_tokenizer, self.control_ids)

    @cached_property
    def fingerprint(self) -> str:
        """Equal for templates that give equal ids, in any process: the key of a cache of tokenised rows."""
        options = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "tokenizer"}
        written = (type(self).__name__, options, sorted(self.control_ids), self.tokenizer.chat_template)
        return hashlib.sha256(repr(written).encode() + self.plain.spec.encode()).hexdigest()

    @property
    def name(self) -> str:
        """How messages name the tokenizer."""
        return getattr(self.tokenizer, "name_or_path", "") or type(self.tokenizer).__name__

    def introduce(self, text: str) -> tuple[tuple[int, ...], str]:
        """The ids of control text that stands before a content, and the lead it leaves to the content.

        A space at its end goes to the side where the tokenizer has it in running text: to the left of the next word in
        byte-level BPE (`:` `Ġfine`), nowhere where spaces only separate words.
        """
        if text.endswith(" "):
            running, ids = self.ids_of(f"{text}a"), self.ids_of(text[:-1])
            for lead in ("", " "):
                if running == ids + tuple(self.plain.encode([f"{lead}a"])[0]):
                    return ids, lead
        return self.ids_of(text), ""

    def ids_of(self, text: str) -> tuple[int, ...]:
        """Control text to ids: special tokens in it are special. Never for content."""
        return tuple(self.tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"])

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # caches are built again

    @cached_property
    def _layouts(self) -> dict[tuple[str, ...], tuple[Turn, ...]]:
        return {}

    def _layout(self, roles: tuple[str, ...]) -> tuple[Turn, ...]:
        if roles not in self._layouts:
            self._layouts[roles] = self.turns(roles)
        return self._layouts[roles]

    def _answered(self, messages: Sequence[Message]) -> Sequence[Message]:
        if (reason := validate(messages)) is not None:
            raise BadRow(reason, messages)
        return messages if messages[-1]["role"] == "assistant" else messages[:-1]

    def _documents(self, rows: Sequence[Sequence[Message]], layouts: Sequence[Sequence[Turn]]) -> Iterator[Document]:
        pairs = [pair for row, turns in zip(rows, layouts, strict=True) for pair in zip(row, turns, strict=True)]
        contents = iter(self.plain.encode([turn.text(message["content"]) for message, turn in pairs]))
        for row, turns in zip(rows, layouts, strict=True):
            ids: list[int] = []
            editable: list[bool] = []
            written = islice(contents, len(row))
            for place, (message, turn, content) in enumerate(zip(row, turns, written, strict=True), 1):
                answer = message["role"] == "assistant" and (self.answers == "all" or place == len(row))
                ids += (*turn.before, *content, *turn.end)
                editable += [False] * len(turn.before) + [answer] * (len(content) + len(turn.end))
            yield Document(ids, editable)
