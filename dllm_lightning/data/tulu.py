"""Any set of conversations with a `messages` column: Tulu 3 from the hub, or files and folders of one's own."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from dllm_lightning.data.chat import ChatDataModule, Split
from dllm_lightning.data.documents import tokenise
from dllm_lightning.data.messages import Message
from dllm_lightning.data.order import shuffled
from dllm_lightning.data.rows import BadData, Rows
from dllm_lightning.data.sources import Source, sources
from dllm_lightning.data.store import Part, Store
from dllm_lightning.data.stream import Inflow, Stream, StreamLoader
from dllm_lightning.data.tokenizer import load_tokenizer


class TuluDataModule(ChatDataModule):
    """Conversations from the hub, files or folders, tokenised once and kept in `cache_dir`, or streamed.

    Args:
        path: see `sources`. A source without validation rows of its own gives some of its training rows.
        tokenizer: folder or hub id.
        validation_size: fraction or number of the rows of such a source, drawn by `split_seed`.
        cache_dir: for tokenised documents and for what comes from the hub; null is ~/.cache/dllm_lightning.
        num_proc: processes that tokenise; one already uses a thread per core.
        streaming: train on rows as they come, without end; validation takes the first `validation_size` rows then.
    """

    def __init__(
        self,
        path: Any = "allenai/tulu-3-sft-mixture",
        tokenizer: str = "answerdotai/ModernBERT-large",
        validation_size: float = 0.05,
        split_seed: int = 42,
        cache_dir: str | None = None,
        num_proc: int = 1,
        streaming: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if validation_size <= 0:
            raise ValueError(f"data.validation_size={validation_size} must be a fraction or a number of rows above 0.")
        self.path, self.validation_size, self.split_seed = path, validation_size, split_seed
        self.num_proc, self.streaming = num_proc, streaming
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
        self.cache_dir = Path(cache_dir or home / "dllm_lightning").expanduser()
        self._tokenizer = tokenizer

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self._tokenizer)

    @cached_property
    def sources(self) -> list[Source]:
        found = sources(self.path, self.split_seed, self.cache_dir, self.streaming)
        if self.streaming and self.validation_size < 1 and not all("validation" in source.splits for source in found):
            raise BadData(
                f"The length of a stream is not known, so data.validation_size={self.validation_size} of it is not either. "
                f"Give a number of rows: data.validation_size=1000."
            )
        return found

    @property
    def kept(self) -> tuple[Split, ...]:
        return ("validation",) if self.streaming else ("train", "validation")

    def prepare_data(self) -> None:
        """Tokenises what is not in the cache; Lightning calls it in one process per machine."""
        for split in self.kept:
            self.parts(split)

    def parts(self, split: Split) -> list[Part]:
        return [
            Part(source.name, store, self.share(source, split, len(store)), source.weight if split == "train" else 1.0)
            for source in self.sources
            if (rows := self.rows(source, split)) is not None
            for store in [self.store(rows)]
        ]

    def conversations(self, split: Split) -> Iterator[Sequence[Message]]:
        """One conversation of each source in turn."""
        turn = deque(self._conversations(source, split) for source in self.sources)
        while turn:
            yield from islice(turn[0], 1)
        ...

    def train_dataloader(self) -> Any:
        if not self.streaming:
            return super().train_dataloader()
        inflows = [Inflow(...)]
