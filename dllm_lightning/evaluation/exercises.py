"""What is asked in an evaluation: questions of a data set, with the answers that it gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dllm_lightning.data import ChatDataModule
from dllm_lightning.data.chat import Split
from dllm_lightning.data.messages import Message
from dllm_lightning.data.template import ChatTemplate, answer_spans
from dllm_lightning.evaluation.subject import Subject

ALL = 2**62  # more than there are


class NothingAsked(ValueError):
    """No question of the data can be put to this model."""


class Exercise(NamedTuple):
    """A question with the answer that was written for it, its judge where right and wrong can be told, and its kind."""

    messages: Sequence[Message]
    reference: str
    judge: Callable[[str], bool] | None
    kind: str | None

    def reference_ids(self, template: ChatTemplate) -> list[int]:
        """The tokens of the given answer, without its end."""
        document = template.encode([[*self.messages, {"role": "assistant", "content": self.reference}]])[0]
        start, stop = answer_spans(document.editable)[-1]
        ids = document.ids[start:stop]
        return ids[: ids.index(template.end_id)] if template.end_id in ids else ids


def exercises(subject: Subject, data: ChatDataModule, split: Split, limit: int | None) -> list[Exercise]:
    """The questions of a split, as far as the network can read them and the answer. Raises NothingAsked for none."""
    count = ALL if limit is None else limit
    asked = data.prompts(count, split)
    judges: list[Any] = [judge for _, judge in data.questions(count, split)] or [None] * len(asked)
    pairs = zip(asked, judges, strict=True)
    found = [Exercise(messages, answer, judge, data.kind(messages)) for (messages, answer), judge in pairs]
    template, longest = subject.loaded.template, subject.longest
    if longest is not None:
        found = [each for each in found if len(template.prompt(each.messages, subject.length).ids) <= longest]
    if not found:
        room = f" that leaves length={subject.length} of {longest} tokens to the answer" if asked else ""
        raise NothingAsked(f"The {split} split has no question{room}: give other data, or answers=false.")
    return found
