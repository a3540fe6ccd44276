"""Documents kept as flat arrays, in memory or on disk, where they open in no time; several of these are a data set."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from dllm_lightning.data.documents import Counts, Encoded
from dllm_lightning.data.packing import Tokens


@dataclass(frozen=True, eq=False)
class Store:
    """Documents as two long arrays and where each one starts; `rows` says which row of the source each one was."""

    ids: np.ndarray
    editable: np.ndarray
    starts: np.ndarray
    rows: np.ndarray
    counts: Counts
    folder: Path | None = None

    @classmethod
    def of(cls, chunks: Iterable[Encoded]) -> Store:
        """A store in memory."""
        *columns, counts = zip(*chunks, strict=True)
        ids, editable, lengths, rows = map(np.concatenate, columns)
        return cls(ids, editable, _starts(lengths), rows, sum(counts, start=Counts()))

    @classmethod
    def open(cls, folder: Path) -> Store:
        """A store on disk, read as far as it is used."""
        counts = json.loads((folder / "counts.json").read_text())
        counts["dropped"] = Counter(counts["dropped"])
        ids, editable = _mapped(folder / "ids.int32", np.int32), _mapped(folder / "editable.bool", np.bool_)
        lengths, rows = np.load(folder / "lengths.npy"), np.load(folder / "rows.npy")
        return cls(ids, editable, _starts(lengths), rows, Counts(**counts), folder)

    @classmethod
    def write(cls, folder: Path, chunks: Iterable[Encoded]) -> Store:
        """Writes a store chunk by chunk; the folder appears when it is complete."""
        draft = folder.with_name(f"{folder.name}.{os.getpid()}.draft")
        draft.mkdir(parents=True, exist_ok=True)
        try:
            lengths, rows, counts = [np.empty(0, np.int32)], [np.empty(0, int)], Counts()
            with (draft / "ids.int32").open("wb") as ids, (draft / "editable.bool").open("wb") as editable:
                for chunk in chunks:
                    ids.write(chunk.ids.tobytes())
                    editable.write(chunk.editable.tobytes())
                    lengths.append(chunk.lengths)
                    rows.append(chunk.rows)
                    counts += chunk.counts
            np.save(draft / "lengths.npy", np.concatenate(lengths))
            np.save(draft / "rows.npy", np.concatenate(rows))
            (draft / "counts.json").write_text(json.dumps(vars(counts)))
            if not folder.exists():  # another process may have been quicker
                draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return cls.open(folder)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)

    def __getitem__(self, document: int) -> Tokens:
        place = slice(self.starts[document], self.starts[document + 1])
        return Tokens(self.ids[place], self.editable[place])

    def __reduce__(self) -> Any:
        """A store on disk travels to another process by name."""
        return super().__reduce__() if self.folder is None else (Store.open, (self.folder,))


class Part(NamedTuple):
    """Some documents of a store, and how often an epoch sees each of them."""

    name: str
    store: Store
    documents: np.ndarray
    weight: float = 1.0


class Documents(Dataset[list[Tokens]]):
    """The documents of several parts, numbered through; an item is a row of them."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = list(parts)
        counts = [len(part.documents) for part in parts]
        self.lengths = np.concatenate([part.store.lengths[part.documents] for part in parts])
        self.weights = np.repeat([part.weight for part in parts], counts)
        self._part = np.repeat(np.arange(len(parts)), counts)
        self._place = np.concatenate([part.documents for part in parts])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: Sequence[int]) -> list[Tokens]:
        return [self.parts[self._part[document]].store[self._place[document]] for document in row]


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _mapped(file: Path, kind: Any) -> np.ndarray:
    return np.asarray(np.memmap(file, kind, mode="r")) if file.stat().st_size else np.empty(0, kind)
