"""Any set of conversations with a `messages` column: Tulu 3 from the hub, or files and folders of one's own."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
from rich.console import Console

from dllm_lightning.data.chat import ChatDataModule, Split, nothing_usable
from dllm_lightning.data.documents import Counts, tokenise
from dllm_lightning.data.flow import Flow, Inflow
from dllm_lightning.data.messages import Message
from dllm_lightning.data.order import shuffled
from dllm_lightning.data.report import streamed
from dllm_lightning.data.rows import BadData, First, Rows
from dllm_lightning.data.sources import Source, entries, locate, sources
from dllm_lightning.data.store import Part, Store
from dllm_lightning.data.stream import Stream, StreamLoader
from dllm_lightning.data.tokenizer import load_tokenizer
from dllm_lightning.data.wrong import OnBadRow, refuse

LOOK = 100  # rows of each split that are looked at before anything else is made


class TuluDataModule(ChatDataModule):
    """Conversations from the hub, files or folders, tokenised once and kept in `cache_dir`, or streamed.

    Args:
        path: see `sources`. A source without validation rows of its own gives some of its training rows.
        tokenizer: folder or hub id.
        validation_size: fraction or number of the rows of such a source, drawn by `split_seed`.
        cache_dir: for tokenised documents and for what comes from the hub; null is ~/.cache/dllm_lightning.
        num_proc: processes that tokenise; one already uses a thread per core.
        streaming: train on rows as they come, without end; validation takes the first `validation_size` rows then.
        on_bad_row: "skip" counts rows that are wrong and goes on; "raise" stops at the first and names it.
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
        on_bad_row: OnBadRow = "skip",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if validation_size <= 0:
            raise ValueError(f"data.validation_size={validation_size} must be a fraction or a number of rows above 0.")
        if num_proc < 1:
            raise ValueError(f"data.num_proc={num_proc} is no number of processes: give 1 or more.")
        if on_bad_row not in get_args(OnBadRow):
            raise ValueError(f"data.on_bad_row={on_bad_row!r} is none of {', '.join(get_args(OnBadRow))}.")
        for entry in entries(path):
            locate(entry)
        self.path, self.validation_size, self.split_seed = path, validation_size, split_seed
        self.num_proc, self.streaming, self.on_bad_row = num_proc, streaming, on_bad_row
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
        self.cache_dir = Path(cache_dir or home / "dllm_lightning").expanduser()
        self._tokenizer = tokenizer
        self._stores: dict[Rows, Store] = {}
        self._stream: StreamLoader | None = None

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self._tokenizer)

    @cached_property
    def sources(self) -> list[Source]:
        found = sources(self.path, self.split_seed, self.cache_dir, self.streaming)
        if self.streaming and self.validation_size < 1 and not all("validation" in source.splits for source in found):
            raise BadData(
                f"A stream has no known length of which to take data.validation_size={self.validation_size}. "
                f"Give a number of rows: data.validation_size=1000."
            )
        return found

    @property
    def rows_per_batch(self) -> int | None:
        return None if self.streaming else super().rows_per_batch

    @property
    def kept(self) -> tuple[Split, ...]:
        return ("validation",) if self.streaming else ("train", "validation")

    def check(self) -> None:
        """Also raises BadData for sources without messages, and for a few rows (all there are) without a usable one."""
        super().check()
        if self.on_bad_row == "raise":
            for each in self.sources:
                for rows in each.splits.values():
                    refuse(First(rows, LOOK), self.encoder)
        looks = [self.encoder([*islice(rows, LOOK)]).counts for each in self.sources for rows in each.splits.values()]
        counts = sum(looks, start=Counts())
        if not counts.used and all(look.rows < LOOK for look in looks):
            raise nothing_usable("train", counts)

    def prepare_data(self) -> None:
        """Tokenises what is not in the cache; Lightning calls it in one process per machine."""
        for split in self.kept:
            self.parts(split)

    def parts(self, split: Split) -> list[Part]:
        return [
            Part(source.name, store, self._share(source, split, len(store)), source.weight if split == "train" else 1.0)
            for source, rows in self._rows(split)
            for store in [self.store(rows)]
        ]

    def conversations(self, split: Split) -> Iterator[Sequence[Message]]:
        """From each source in turn."""
        parts = zip(self.documents(split).parts, self._rows(split), strict=True)
        turns = deque(_messages(part, rows) for part, (_, rows) in parts)
        while turns:
            rows = turns.popleft()
            for messages in islice(rows, 1):
                yield messages
                turns.append(rows)  # a source that has run dry does not come back

    def store(self, rows: Rows) -> Store:
        """The documents of some rows, from the cache if they are there."""
        if rows not in self._stores:
            self._stores[rows] = self._store(rows)
        return self._stores[rows]

    def _store(self, rows: Rows) -> Store:
        folder = None
        if (fingerprint := rows.fingerprint) is not None:
            key = f"{self.encoder.fingerprint} {fingerprint}"
            folder = self.cache_dir / "documents" / hashlib.sha256(key.encode()).hexdigest()[:24]
        kept = Store.open(folder) if folder is not None and folder.exists() else None
        if self.on_bad_row == "raise" and (kept is None or kept.counts.wrong):
            refuse(rows, self.encoder)
        if kept is not None:
            return kept
        documents = tokenise(rows, self.encoder, self.num_proc)
        return Store.of(documents) if folder is None else Store.write(folder, documents)

    def training_loader(self) -> Any:
        if not self.streaming:
            return super().training_loader()
        trainer: Any = self.trainer
        limited = trainer is not None and isinstance(trainer.limit_train_batches, int)
        if trainer is not None and trainer.max_steps < 0 and not limited:
            raise BadData("A stream has no end: with data.streaming=true say when to stop with trainer.max_steps.")
        inflows = [
            Inflow(source.name, source.splits["train"], source.weight, skip)
            for source in self.sources
            for skip in [0 if "validation" in source.splits else int(self.validation_size)]
        ]
        flow = Flow(inflows, self.encoder, self.layout("train"), self.batch_size, self.seed, self.on_bad_row)
        stream = Stream(flow, self._rank, self._world)
        self._stream = StreamLoader(stream, self.num_workers, self.pin_memory, early=not limited)
        return self._stream

    def teardown(self, stage: str) -> None:
        """Says at the end of training which rows of a stream were of no use: before it nobody can know."""
        if stage == "fit" and self._stream is not None and self._rank == 0:
            Console().print(streamed(*self._stream.seen))
            self._stream = None

    def _rows(self, split: Split) -> Iterator[tuple[Source, Rows]]:
        """The rows that hold the documents of a split; training rows where a source has none for validation."""
        for source in self.sources:
            if split in source.splits:
                yield source, source.splits[split]
            elif split == "validation":
                rows = source.splits["train"]
                yield source, First(rows, int(self.validation_size)) if self.streaming else rows

    def _share(self, source: Source, split: Split, count: int) -> np.ndarray:
        """The documents that belong to a split: all, or some where training rows also serve for validation."""
        if split == "test" or "validation" in source.splits or self.streaming:
            return np.arange(count)
        held_out = round(self.validation_size if self.validation_size >= 1 else self.validation_size * count)
        if held_out >= count > 0:
            size = f"data.validation_size={self.validation_size}"
            raise BadData(f"{source.name} has {count} usable rows, of which {size} leaves none to train on.")
        drawn = shuffled(count, self.split_seed)
        return np.sort(drawn[:held_out] if split == "validation" else drawn[held_out:])


def _messages(part: Part, rows: Rows) -> Iterator[Sequence[Message]]:
    """The conversations, among these rows, that are documents of a part."""
    chosen = frozenset(part.store.rows[part.documents].tolist())
    return (row["messages"] for number, row in enumerate(rows) if number in chosen)
