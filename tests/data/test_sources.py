"""Every way to name data finds the same rows, and every way to name it wrongly is answered with a sentence."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dllm_lightning.data.files import Files
from dllm_lightning.data.rows import BadData, First, Rows, Some
from dllm_lightning.data.sources import entries, sources, split_of


def chat(number: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"{number}?"}, {"role": "assistant", "content": f"{number}!"}]
    return {"id": number, "messages": messages}


ROWS = [chat(number) for number in range(6)]


def write(file: Path, rows: list[Any] = ROWS) -> Path:
    """Rows in the format that the file's name asks for."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(rows) if ".json" in file.suffixes else "\n".join(map(json.dumps, rows))
    if file.suffix == ".parquet":
        from pyarrow import Table, parquet

        parquet.write_table(Table.from_pylist(rows), file)
    elif file.suffix == ".gz":
        file.write_bytes(gzip.compress(text.encode()))
    else:
        file.write_text(text)
    return file


def messages(rows: Rows) -> list[Any]:
    return [row["messages"] for row in rows]


def found(path: Any, **options: Any) -> dict[str, dict[str, int]]:
    """The number of rows of each split of each source."""
    return {s.name: {split: len(list(rows)) for split, rows in s.splits.items()} for s in sources(path, **options)}


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.json.gz", "a.jsonl.gz", "a.parquet"])
def test_every_format_holds_the_same_rows(tmp_path: Path, name: str) -> None:
    (source,) = sources(str(write(tmp_path / name)))
    assert source.name == "a" and messages(source.splits["train"]) == [row["messages"] for row in ROWS]
    assert messages(source.splits["train"]) == messages(source.splits["train"])  # rows can be read again


def test_a_json_file_may_hold_lines_or_an_indented_array(tmp_path: Path) -> None:
    (tmp_path / "lines.json").write_text("\n".join(map(json.dumps, ROWS)) + "\n\n")
    (tmp_path / "array.json").write_text("\n" + json.dumps(ROWS, indent=2))
    assert list(Files((tmp_path / "lines.json",))) == list(Files((tmp_path / "array.json",))) == ROWS


def test_a_folder_with_files_named_after_splits_has_these_splits(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "valid.jsonl", "test.json", "README.md"):
        write(tmp_path / "set" / name)
    assert found(tmp_path / "set") == {"set": {"train": 12, "validation": 6, "test": 6}}


def test_a_folder_without_a_training_file_is_training_rows(tmp_path: Path) -> None:
    write(tmp_path / "set" / "one.jsonl")
    write(tmp_path / "set" / "two.jsonl")
    assert found(tmp_path / "set") == {"set": {"train": 12}}


def test_a_folder_of_folders_is_their_mixture(tmp_path: Path) -> None:
    for name in ("a/train", "a/validation", "b/rows", "c/data/train", ".hidden/train"):
        write(tmp_path / f"{name}.jsonl")
    write(tmp_path / "d" / "CARD.md")
    assert found(tmp_path) == {"a": {"train": 6, "validation": 6}, "b": {"train": 6}, "c/data": {"train": 6}}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "train") for name in ("train.jsonl", "train_sft-00.parquet", "training.json")),
        *((name, "validation") for name in ("Validation.json", "valid.json", "val-1.json", "dev.json")),
        *((name, "test") for name in ("test_gen", "test.jsonl.gz")),
        *((name, None) for name in ("trainer.json", "values.json", "rows.json")),
    ],
)
def test_a_split_is_known_by_how_a_name_begins(name: str, split: str | None) -> None:
    assert split_of(name) == split


def test_sources_are_mixed_from_lists_and_mappings(tmp_path: Path) -> None:
    a, b = str(write(tmp_path / "a.jsonl")), str(write(tmp_path / "b.jsonl"))
    assert found([a, b]) == {"a": {"train": 6}, "b": {"train": 6}}
    assert found([a, {"path": b, "rows": 4}]) == {"a": {"train": 6}, "b": {"train": 4}}
    mixed = sources({"one": a, "two": {"path": b, "weight": 0.5, "rows": 100}})
    assert [(s.name, s.weight) for s in mixed] == [("one", 1.0), ("two", 0.5)]
    assert found({"path": a}) == {"a": {"train": 6}}


def test_a_limit_draws_the_same_rows_each_time_and_others_by_another_seed(tmp_path: Path) -> None:
    rows = Files((write(tmp_path / "a.jsonl", [chat(number) for number in range(100)]),))
    drawn = [row["id"] for row in Some(rows, 10, seed=1)]
    assert drawn == [row["id"] for row in Some(rows, 10, seed=1)] == sorted(drawn) and len(set(drawn)) == 10
    assert drawn != [row["id"] for row in Some(rows, 10, seed=2)]


def test_the_first_rows_are_the_first(tmp_path: Path) -> None:
    assert [row["id"] for row in First(Files((write(tmp_path / "a.jsonl"),)), 2)] == [0, 1]


def test_the_fingerprint_changes_with_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl")
    before = Files((file,)).fingerprint
    assert Files((file,)).fingerprint == before != Some(Files((file,)), 3, 0).fingerprint
    write(file, ROWS[:-1])
    assert Files((file,)).fingerprint != before


def wrong_ways(folder: Path) -> Iterator[tuple[Any, str]]:
    (folder / "empty").mkdir()
    good = str(write(folder / "good.jsonl"))
    (folder / "text.csv").write_text("a,b")
    (folder / "array.json").write_text('[{"messages": []}')
    (folder / "short.jsonl.gz").write_bytes(gzip.compress(json.dumps(ROWS).encode() * 50)[:-50])
    (folder / "noise.parquet").write_bytes(b"noise" * 10)
    yield "", r"data\.path is empty"
    yield [], r"data\.path is empty"
    yield {}, r"data\.path is empty"
    yield "nowhere/chat.jsonl", r"no file or folder 'nowhere/chat\.jsonl'"
    yield "/nowhere/at/all", r"no file or folder '/nowhere/at/all'"
    yield folder / "empty", r"empty holds no data file \(\.json, "
    yield folder / "text.csv", r"text\.csv is not one of \.json, "
    yield folder / "array.json", r"array\.json begins like a JSON array but is none"
    yield folder / "short.jsonl.gz", r"short\.jsonl\.gz cannot be read .* Is it complete\?"
    yield folder / "noise.parquet", r"noise\.parquet is not a Parquet file"
    yield write(folder / "texts.jsonl", [{"text": "a"}]), r"texts\.jsonl have no 'messages' column, only 'text'"
    yield write(folder / "texts.parquet", [{"text": "a"}]), r"texts\.parquet have no 'messages' column, only 'text'"
    yield {"path": good, "wieght": 2}, r"entry with wieght; it may have path, name, weight, rows, config"
    yield {"a": {"weight": 2}}, r"entry without a path: \{'weight': 2\}"
    yield {"path": good, "weight": 0}, r"weight=0 .* must be positive"
    yield {"path": good, "rows": -1}, r"rows=-1; both must be positive"


def test_every_wrong_way_gets_a_sentence(tmp_path: Path) -> None:
    for path, sentence in wrong_ways(tmp_path):
        with pytest.raises(BadData, match=sentence) as caught:
            found(path)
        assert "\n" not in str(caught.value)


def test_a_stream_cannot_be_limited(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="rows=3, drawn from all its rows; a stream cannot do that"):
        sources({"path": write(tmp_path / "a.jsonl"), "rows": 3}, streaming=True)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A hub with one set on it."""
    import datasets

    rows = datasets.Dataset.from_list(ROWS)
    held = {"someone/chats": {"train_sft": rows, "test_sft": rows.select(range(2))}}

    def load_dataset(path: str, config: str | None, cache_dir: str | None, streaming: bool) -> Any:
        if path not in held:
            raise ConnectionError(f"Couldn't reach '{path}' on the Hub\nand more")
        return {name: rows.to_iterable_dataset() if streaming else rows for name, rows in held[path].items()}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return held


@pytest.mark.parametrize("streaming", [False, True])
def test_a_hub_set_has_its_splits(hub: dict[str, Any], streaming: bool) -> None:
    assert found("someone/chats", streaming=streaming) == {"someone/chats": {"train": 6, "test": 2}}


def test_a_hub_that_does_not_answer_is_a_sentence(hub: dict[str, Any]) -> None:
    sentence = r"^'someone/else' is no file or folder here, .*Couldn't reach .*Without a network"
    with pytest.raises(BadData, match=sentence) as caught:
        sources("someone/else")
    assert "\n" not in str(caught.value)


def test_entries_keep_their_names() -> None:
    assert [(entry.name, entry.path) for entry in entries({"a": "x", "b": {"path": "y"}})] == [("a", "x"), ("b", "y")]
