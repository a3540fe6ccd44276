"""What `data.path` names: files, folders and sets on the Hugging Face hub, alone or mixed, and the splits each has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dllm_lightning.data.files import SUFFIXES, Files
from dllm_lightning.data.hub import Hub, expect_no_network
from dllm_lightning.data.rows import BadData, Rows, Some

SPLITS = {"train": "train|training", "validation": "validation|valid|val|dev", "test": "test"}
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Source:
    """A set of conversations: the rows of each split it has, and how often an epoch sees its training documents."""

    name: str
    splits: Mapping[str, Rows]
    weight: float = 1.0


@dataclass(frozen=True)
class Entry:
    """One thing to read, as it stands in the configuration.

    `rows` limits the training rows, drawn by seed. A folder of folders gives its weight and its limit to each set in
    it. `config` is the configuration of a hub set that has several.
    """

    path: str | Path
    name: str = ""
    weight: float = 1.0
    rows: int | None = None
    config: str | None = None

    def __post_init__(self) -> None:
        if self.weight <= 0 or (self.rows is not None and self.rows < 1):
            raise BadData(f"{self.path} has weight={self.weight} and rows={self.rows}; both must be positive.")


def sources(path: Any, seed: int = 42, cache_dir: Path | None = None, streaming: bool = False) -> list[Source]:
    """The sources of a file, a folder, a hub id, a list of these, or a mapping from names to these.

    In place of a path there may be `{path: ..., weight: ..., rows: ..., config: ...}`.
    """
    found = []
    for entry in entries(path):
        for source in _find(entry, cache_dir, streaming):
            splits = dict(source.splits)
            if entry.rows is not None and streaming:
                raise BadData(f"{entry.path} has rows={entry.rows}, drawn from all its rows; a stream cannot do that.")
            if entry.rows is not None and "train" in splits:
                splits["train"] = Some(splits["train"], entry.rows, seed)
            found.append(replace(source, splits=splits, weight=entry.weight))
    if not found:
        raise BadData("data.path is empty. Give it a file, a folder or the id of a set on the Hugging Face hub.")
    return found


def entries(path: Any) -> list[Entry]:
    """The entries of a configuration in any of its forms."""
    if isinstance(path, Mapping) and "path" not in path:
        return [replace(_entry(value), name=str(name)) for name, value in path.items()]
    values = [path] if isinstance(path, str | Path | Mapping) else path or []
    return [_entry(value) for value in values if value]


def locate(entry: Entry) -> Path | None:
    """The file or folder of an entry, or None if it can only be on the hub; BadData if it can be neither."""
    path, local = str(entry.path), Path(entry.path).expanduser()
    if local.is_file() and not path.endswith(SUFFIXES):
        raise BadData(f"The file {path} is not one of {', '.join(SUFFIXES)}.")
    if local.exists():
        return local
    if path.endswith(SUFFIXES) or not _HUB_ID.fullmatch(path):
        raise BadData(f"There is no file or folder {path!r}. data.path also takes the id of a set on the hub.")
    return None


def split_of(name: str) -> str | None:
    """The split that the name of a file or a hub split begins with: train-00000-of-00002.parquet is train."""
    for split, names in SPLITS.items():
        if re.match(rf"({names})(?![a-z])", name.lower()):
            return split
    return None


def _entry(value: Any) -> Entry:
    if not isinstance(value, Mapping):
        return Entry(value)
    if unknown := value.keys() - {"path", "name", "weight", "rows", "config"}:
        known = "path, name, weight, rows, config"
        raise BadData(f"data.path has an entry with {', '.join(sorted(map(str, unknown)))}; it may have {known}.")
    if not value.get("path"):
        raise BadData(f"data.path has an entry without a path: {dict(value)}.")
    return Entry(**{str(key): option for key, option in value.items()})


def _find(entry: Entry, cache_dir: Path | None, streaming: bool) -> list[Source]:
    local = locate(entry)
    if local is None:
        return [Source(entry.name or str(entry.path), _hub(str(entry.path), entry.config, cache_dir, streaming))]
    if local.is_dir():
        return _folder(local, entry.name)
    return [Source(entry.name or local.name.split(".")[0], {"train": Files((local,))})]


def _folder(folder: Path, name: str) -> list[Source]:
    """The files of a folder as one source, and the sources of each folder in it that holds data."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name.endswith(SUFFIXES))
    by_split: dict[str | None, list[Path]] = {}
    for file in files:
        by_split.setdefault(split_of(file.name), []).append(file)
    if "train" not in by_split and files:
        by_split = {"train": files}
    splits = {split: Files(tuple(paths)) for split, paths in by_split.items() if split}
    found = [Source(name or folder.resolve().name, splits)] if splits else []
    for inner in sorted(inner for inner in folder.iterdir() if inner.is_dir() and not inner.name.startswith(".")):
        if any(file.name.endswith(SUFFIXES) for file in inner.rglob("*")):
            found += _folder(inner, f"{name}/{inner.name}" if name else inner.name)
    if not found:
        raise BadData(f"The folder {folder} holds no data file ({', '.join(SUFFIXES)}).")
    return found


def _hub(path: str, config: str | None, cache_dir: Path | None, streaming: bool) -> dict[str, Rows]:
    expect_no_network()
    from datasets import load_dataset

    try:
        found = load_dataset(path, config, cache_dir=cache_dir and str(cache_dir / "hub"), streaming=streaming)
    except Exception as error:  # no network, no such name, no access: many libraries, one consequence
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise BadData(
            f"{path!r} is no file or folder here, and the Hugging Face hub did not give a set of that name ({reason}). "
            f"Without a network, give data.path a local file or folder."
        ) from error
    splits: dict[str, Rows] = {}
    for name, rows in found.items():
        if split := split_of(str(name)):
            splits.setdefault(split, Hub(rows, f"{path}/{name}"))
    if "train" not in splits:
        raise BadData(f"{path!r} has no training split, only {', '.join(map(str, found))}.")
    return splits
