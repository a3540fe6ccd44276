"""What a process has to say for itself on a model card: all words there that hold for it alone come from one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from dllm_lightning.loading import Loaded
from dllm_lightning.publish.tokenizer import Mend


class Program(Protocol):
    """Writes a program that asks a model one question, with nothing but torch and transformers."""

    def __call__(self, loaded: Loaded, tokenizer: Any, mended: Mend, name: str, slots: int) -> str:
        """The program for a model that is loaded by `name`, with `slots` for the answer."""


@dataclass(frozen=True)
class Manner:
    """How models of one process answer, in words and as a program.

    `opening` says what such a model does, and may name `{mask_word}`; `task` and `tag` are words of the hub;
    `mask` is what the mask token means in a conversation, None where it means nothing.
    """

    opening: str
    task: str
    tag: str
    mask: str | None
    program: Program
