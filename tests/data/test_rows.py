"""Files and sets give their rows whole, in shares without overlap, and from any place on; a number finds a row."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from dllm_lightning.data.files import Files
from dllm_lightning.data.hub import Hub
from dllm_lightning.data.messages import Unread
from dllm_lightning.data.rows import BadData, First, Rows, Some


def chat(number: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"{number}?"}, {"role": "assistant", "content": f"{number}!"}]
    return {"id": number, "messages": messages}


def lines(file: Path, rows: list[Any]) -> Path:
    """A blank line between rows is no row."""
    text = "\n\n".join(map(json.dumps, rows)).encode()
    file.write_bytes(gzip.compress(text) if file.suffix == ".gz" else text)
    return file


def parquet(file: Path, rows: list[Any]) -> Path:
    from pyarrow import Table
    from pyarrow.parquet import write_table

    write_table(Table.from_pylist(rows), file, row_group_size=3)
    return file


def array(file: Path, rows: list[Any]) -> Path:
    file.write_text(json.dumps(rows, indent=1))
    return file


def files(folder: Path, count: int) -> Rows:
    """Several files of every kind, of different sizes."""
    rows = [chat(number) for number in range(count)]
    first, second, third = count // 7, count // 2, count - count // 5
    return Files(
        (
            lines(folder / "a.jsonl", rows[:first]),
            array(folder / "b.json", rows[first:second]),
            lines(folder / "c.jsonl.gz", rows[second:third]),
            parquet(folder / "d.parquet", rows[third:]),
        )
    )


def table(folder: Path, count: int) -> Rows:
    rows = datasets.Dataset.from_list([chat(number) for number in range(count)])
    return Hub(rows.to_iterable_dataset(num_shards=min(count, 6)), "set/train")


def published(folder: Path, count: int) -> Rows:
    """As `datasets` reads a set of Parquet files from the hub."""
    shards = [[chat(number) for number in range(start, count, 4)] for start in range(min(count, 4))]
    paths = [str(parquet(folder / f"{number}.parquet", shard)) for number, shard in enumerate(shards)]
    loaded = datasets.load_dataset("parquet", data_files=paths, streaming=True, cache_dir=str(folder / "cache"))
    return Hub(loaded["train"], "set/train")


def generated(folder: Path, count: int) -> Rows:
    def make(starts: list[int]) -> Any:
        for start in starts:
            yield from (chat(number) for number in range(start, count, 2))

    return Hub(datasets.IterableDataset.from_generator(make, gen_kwargs={"starts": [0, 1]}), "set/train")


KINDS = [files, table, published, generated]


def key(row: dict[str, Any]) -> str:
    return str(row["messages"][0]["content"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [5, 24])
@pytest.mark.parametrize("skip", [0, 3])
def test_readers_side_by_side_see_each_row_once(
    kind: Callable[..., Rows], count: int, skip: int, tmp_path: Path
) -> None:
    rows = kind(tmp_path, count)
    whole = [key(row) for row in rows]
    assert len({*whole}) == count
    for parts in (1, 2, 3, 7):
        shares = [[key(row) for _, row in rows.share(part, parts, skip)] for part in range(parts)]
        assert sorted(chain(*shares)) == sorted(whole[skip:])
        assert max(map(len, shares)) - min(map(len, shares)) <= (1 if skip or count % 6 else count)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("skip", [0, 3])
def test_a_reader_goes_on_from_any_place(kind: Callable[..., Rows], skip: int, tmp_path: Path) -> None:
    rows = kind(tmp_path, 15)
    for part, parts in ((0, 1), (1, 2), (2, 4)):
        unbroken = list(rows.share(part, parts, skip))
        for stop in range(len(unbroken) + 1):
            reader = rows.share(part, parts, skip)
            assert [next(reader) for _ in range(stop)] == unbroken[:stop]
            torch.save(reader.place, tmp_path / "place")
            place = torch.load(tmp_path / "place", weights_only=True)
            assert list(reader) == unbroken[stop:]
            assert list(rows.share(part, parts, skip, place)) == unbroken[stop:]
        assert list(rows.share(part, parts, skip)) == unbroken  # a place leaves nothing behind


def test_going_on_reads_no_row_that_was_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, parsed = files(tmp_path, 60), []
    monkeypatch.setattr("dllm_lightning.data.files.json.loads", lambda text: parsed.append(text) or {"messages": []})
    reader = Files(rows.paths[:1]).share(0, 2, 0, place=3)  # type: ignore[attr-defined]
    assert [number for number, _ in reader] == [6]
    assert len(parsed) == 2  # the first row, which shows what the file is, and the one that was asked for


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_found_by_the_number_it_was_given_with(kind: Callable[..., Rows], tmp_path: Path) -> None:
    rows = kind(tmp_path, 23)
    reader = rows.share(1, 5, 2)
    number, row = list(reader)[2]
    assert [key(row) for row in rows][number] == key(row) and number == 2 + 1 + 2 * 5
    assert reader.where(number) == rows.where(number)


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    rows = files(tmp_path, 60)
    assert rows.where(0) == f"{tmp_path}/a.jsonl, line 1," and rows.where(2) == f"{tmp_path}/a.jsonl, line 5,"
    assert rows.where(8) == f"{tmp_path}/b.json, row 1," and rows.where(59) == f"{tmp_path}/d.parquet, row 12,"
    assert First(rows, 9).where(2) == rows.where(2)
    some = Some(rows, 4, seed=0)
    assert [some.where(n) for n in range(4)] == [rows.where(int(key(row)[:-1])) for row in some]


def test_a_reader_of_whole_files_says_which_share_it_counts_in(tmp_path: Path) -> None:
    reader = published(tmp_path, 24).share(1, 4)
    assert reader.where(next(reader)[0]) == "set/train, row 1 of share 2 of 4,"


@pytest.mark.parametrize(
    ("line", "reason", "start"),
    [
        (b'{"messages": [', "not JSON", '{"messages": ['),
        (b"words \xe2\x82\xac", "not JSON", "words €"),
        (b'{"messages": "\xff\xfe"}', "not UTF-8", '{"messages": "\\xff\\xfe"}'),
        (b'{"messages": "\xed\xa0\xbd"}', "not UTF-8", '{"messages": "\\xed\\xa0\\xbd"}'),
        (b"[" * 100_000, "not JSON", "[" * 200),
        (b'{"messages": ' + b"9" * 5000 + b"}", "not JSON", '{"messages": ' + "9" * 187),
        (b"\x00\x00", "not JSON", "\x00\x00"),
    ],
    ids=["cut short", "words", "no UTF-8", "a surrogate in UTF-8", "a nest", "a long number", "zeros"],
)
def test_a_line_that_cannot_be_read_is_one_row_that_says_why(
    line: bytes, reason: str, start: str, tmp_path: Path
) -> None:
    good = json.dumps(chat(0)).encode()
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([good, line, good]))
    assert list(Files((tmp_path / "a.jsonl",))) == [chat(0), Unread(reason, start), chat(0)]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("whole", [True, False])
def test_marks_of_byte_order_and_of_line_ends_are_no_part_of_a_row(ending: str, whole: bool, tmp_path: Path) -> None:
    rows = [chat(0), chat(1)]
    text = ending.join(json.dumps(rows, indent=1).split("\n") if whole else map(json.dumps, rows))
    for name, pack in (("a.json", bytes), ("a.json.gz", gzip.compress)):
        (tmp_path / name).write_bytes(pack(text.encode("utf-8-sig")))
        assert list(Files((tmp_path / name,))) == rows


def column(folder: Path, values: list[Any]) -> Path:
    return parquet(folder / "typed.parquet", [{"messages": value} for value in values])


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["text"], "string"),
        ([1, 2], "int64"),
        ([["a"], ["b"]], r"list<.*string>"),
        ([{"role": "user"}], "struct<"),
        ([None], "null"),
    ],
)
def test_a_column_of_another_type_is_refused_by_name(values: list[Any], kind: str, tmp_path: Path) -> None:
    with pytest.raises(BadData, match=rf"typed\.parquet has 'messages' of type {kind}"):
        list(Files((column(tmp_path, values),)))


def broken(folder: Path) -> list[tuple[str, bytes, str]]:
    good = b"\n".join(json.dumps(chat(number)).encode() for number in range(2000))
    zipped = gzip.compress(good)
    whole = parquet(folder / "whole.parquet", [chat(number) for number in range(500)]).read_bytes()
    return [
        ("cut.jsonl.gz", zipped[: len(zipped) // 2], "Is it complete"),
        ("flipped.jsonl.gz", zipped[:3000] + b"\xff" * 50 + zipped[3050:], "Is it complete"),
        ("text.jsonl.gz", good, "Is it complete"),
        ("cut.parquet", whole[: len(whole) // 2], "not a Parquet file, or not all of one"),
        (
            "object.json",
            json.dumps({"data": [chat(0)], "info": 1}, indent=1).encode(),
            r"one JSON object \('data', 'info'\)",
        ),
        ("array.json", json.dumps([chat(0)]).encode()[:-1], "begins like a JSON array but is none"),
        ("latin.json", b'[{"messages": "\xe9"}]', "begins like a JSON array but is none"),
    ]


def test_a_file_that_is_broken_is_refused_by_name(tmp_path: Path) -> None:
    for name, content, said in broken(tmp_path):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadData, match=rf"{name}.*{said}") as caught:
            list(Files((tmp_path / name,)))
        assert "\n" not in str(caught.value)
