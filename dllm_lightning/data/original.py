"""The original recipe's text: `User: ... [SEP] Assistant: ...`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from dllm_lightning.data.jinja import jinja
from dllm_lightning.data.messages import ROLES
from dllm_lightning.data.template import ChatTemplate, Turn
from dllm_lightning.types import InvalidTokenizer


@dataclass(frozen=True, eq=False)
class Original(ChatTemplate):
    """Turns named in plain words, each closed by the separator: `[CLS]User: {question}[SEP]Assistant: {answer}[SEP]`.

    Exactly: [CLS] once, if the tokenizer has it; then for each message `System: `, `User: ` or `Assistant: ` and its
    content, tokenised as one running text, and [SEP] (the eos token where there is no separator). Several turns follow
    each other in the same way. The words can be typed by anyone; the separators between turns cannot.
    """

    @cached_property
    def end_id(self) -> int:
        for end_id in (self.tokenizer.sep_token_id, self.tokenizer.eos_token_id):
            if end_id is not None:
                return int(end_id)
        raise InvalidTokenizer(
            f"The tokenizer {self.name!r} has neither a sep nor an eos token, so no turn could end. Add one of them."
        )

    @property
    def markers(self) -> frozenset[int]:
        return frozenset({self.end_id})

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.end_id >= 0  # refuses now, not at the first row

    @property
    def jinja(self) -> str:
        """This template as a tokenizer's own, for ordinary text: one that spells the separator would become it."""
        opens = {role: _opening(role) for role in ROLES}
        answer = _opening("assistant")
        before, _ = self.introduce(answer)  # the space belongs to the answer, or is no token at all
        answer = answer[:-1] if before == self.ids_of(answer[:-1]) else answer
        return jinja(self.tokenizer.cls_token or "", opens, self.tokenizer.convert_ids_to_tokens(self.end_id), answer)

    def turns(self, roles: tuple[str, ...]) -> tuple[Turn, ...]:
        start = () if self.tokenizer.cls_token_id is None else (self.tokenizer.cls_token_id,)
        named = [self.introduce(_opening(role)) for role in roles]
        return tuple(
            Turn((*start, *ids) if place == 0 else ids, lead, (self.end_id,)) for place, (ids, lead) in enumerate(named)
        )


def _opening(role: str) -> str:
    return f"{role.capitalize()}: "
