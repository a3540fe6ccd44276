"""The toy chat as data: questions made in memory, whose answers can be checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np

from dllm_lightning.data.chat import ChatDataModule, Split
from dllm_lightning.data.documents import tokenise
from dllm_lightning.data.messages import Message
from dllm_lightning.data.store import Part, Store
from dllm_lightning.data.toy import Row, check, generate, task_of, toy_tokenizer


class ToyDataModule(ChatDataModule):
    """Conversations about a small fixed world, of any number; no question is in two splits.

    Args:
        train_size, validation_size, test_size: conversations of each split.
        tasks: names of tasks, drawn evenly; null takes all.
        level: 1 to 3, or several of them.
        turns: questions in a conversation, at most.
        toy_seed: of the conversations.
    """

    def __init__(
        self,
        train_size: int = 20_000,
        validation_size: int = 512,
        test_size: int = 512,
        tasks: Sequence[str] | None = None,
        level: int | Sequence[int] = 1,
        turns: int = 1,
        toy_seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if min(train_size, validation_size, test_size, turns) < 1:
            raise ValueError(
                f"data.train_size={train_size}, validation_size={validation_size}, test_size={test_size} and "
                f"turns={turns} must be at least 1."
            )
        self.sizes: dict[Split, int] = {"train": train_size, "validation": validation_size, "test": test_size}
        self.tasks, self.level, self.turns, self.toy_seed = tasks, level, turns, toy_seed
        self._rows: dict[Split, list[Row]] = {}

    @cached_property
    def tokenizer(self) -> Any:
        return toy_tokenizer()

    def rows(self, split: Split) -> list[Row]:
        """The conversations of a split, made once."""
        if split not in self._rows:
            self._rows[split] = generate(split, self.sizes[split], self.toy_seed, self.tasks, self.level, self.turns)
        return self._rows[split]

    def check(self) -> None:
        """Also makes the validation questions, and raises ValueError for tasks or sizes that cannot be had."""
        super().check()
        self.rows("validation")

    def parts(self, split: Split) -> list[Part]:
        store = Store.of(tokenise(self.rows(split), self.encoder))
        return [Part(f"toy {split}", store, np.arange(len(store)))]

    def conversations(self, split: Split) -> Iterator[Sequence[Message]]:
        return (row["messages"] for row in self.rows(split))

    def questions(self, count: int, split: Split = "validation") -> list[tuple[list[Message], Callable[[str], bool]]]:
        return [(chat, partial(check, chat[-1]["content"])) for chat, _ in self.prompts(count, split)]

    def kind(self, messages: Sequence[Message]) -> str | None:
        """The task of the last question."""
        return task_of(messages[-1]["content"]).name
