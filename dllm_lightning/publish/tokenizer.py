"""A tokenizer that lays out conversations as the model was trained to read them, with no code of ours.

Its chat template is text, and the markers in it have to be found there as tokens. What it writes is compared with our
own ids before it leaves the house.
"""

from __future__ import annotations

import copy
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from dllm_lightning.data.messages import Message
from dllm_lightning.data.template import UNUSED, ChatTemplate
from dllm_lightning.data.tokenizer import read_tokenizer

TALK = (
    {"role": "user", "content": "How much is 3 + 4?"},
    {"role": "assistant", "content": "7, of course."},
    {"role": "user", "content": "And one more?"},
)


class CannotPublish(ValueError):
    """Plain transformers could not use the model as it was trained."""


def speaking(template: ChatTemplate) -> Any:
    """A copy of the template's tokenizer that has the template, and finds its markers in text. No id changes."""
    from tokenizers import AddedToken

    tokenizer = copy.deepcopy(template.tokenizer)
    if template.jinja is not None:
        tokenizer.chat_template = template.jinja
    known = tokenizer.added_tokens_decoder
    for i in sorted(template.markers):
        word = tokenizer.convert_ids_to_tokens(i)
        reserved = UNUSED.fullmatch(word) is not None
        if reserved or i not in known:  # a word that text may hold stays an ordinary one to a process
            tokenizer.add_tokens([AddedToken(word, special=reserved, normalized=False)], special_tokens=reserved)
    return tokenizer


class Mend(NamedTuple):
    """What has to be done to a tokenizer's prompt so that an answer begins as in training: nothing, as a rule."""

    drop: int
    add: tuple[int, ...]


def mend(folder: Path, template: ChatTemplate) -> Mend:
    """How the prompts of the tokenizer in a folder differ from the template's, at their end.

    Our templates do not differ; a tokenizer's own may end its prompt with a space, or lack the prompt altogether.
    Raises CannotPublish where more than the end differs.
    """
    tokenizer = read_tokenizer(folder, f"The folder {str(folder)!r}")
    found: set[Mend] = set()
    for asked in (TALK[:1], TALK):
        theirs, (*ours, _) = _written(tokenizer, asked), template.prompt(asked, 1).ids
        same = len([*takewhile(lambda pair: pair[0] == pair[1], zip(theirs, ours, strict=False))])
        found.add(Mend(len(theirs) - same, tuple(ours[same:])))
    if len(found) > 1:
        raise CannotPublish(
            f"The tokenizer {template.name!r} cannot be published: by itself it reads a conversation as {theirs}, and "
            f"the model was trained to read {ours}. Train with another data/template."
        )
    return found.pop()


def _written(tokenizer: Any, messages: tuple[Message, ...]) -> list[int]:
    encoded = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=True)
    return [int(i) for i in encoded["input_ids"]]
