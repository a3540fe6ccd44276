"""A row that is wrong is counted under its own name, or stops the run and is shown: as the user has chosen."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dllm_lightning.data import BadData, TuluDataModule, Turns, tulu
from dllm_lightning.data.documents import Counts
from dllm_lightning.data.toy import generate, toy_tokenizer

ROWS = generate("train", 120)


def turn(role: Any, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def asked(content: Any, role: Any = "assistant") -> dict[str, Any]:
    return {"messages": [turn("user", "sort 3 1 2"), turn(role, content)]}


WRONG: dict[str, list[Any]] = {
    "not JSON": [b'{"messages": [', b"words", b"{'messages': []}"],
    "not UTF-8": [b'{"messages": "\xff"}'],
    "not a mapping": [7, None, "text"],
    "no messages": [{"messages": []}, {"messages": None}, {"text": "a"}],
    "messages is text, not a list": [{"messages": "text"}],
    "messages is a mapping, not a list": [{"messages": turn("user", "a")}],
    "a message is text, not a mapping": [{"messages": ["text"]}],
    "a message without a role": [{"messages": [{"content": "a"}]}],
    "unknown role 'tool'": [asked("a", "tool")],
    "roles out of order": [asked("a", "user"), {"messages": [turn("assistant", "a")]}],
    "content is null, not text": [asked(None)],
    "content is a number, not text": [asked(1), asked(0.5)],
    "content is a list, not text": [asked([{"type": "text", "text": "a"}])],
    "content with half a surrogate pair": [asked("a\ud83d")],
    "empty content": [asked(""), asked(" \n")],
    "no answer": [{"messages": [turn("user", "a")]}],
}


def lines(rows: list[Any]) -> bytes:
    return b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows)


def module(folder: Path, content: bytes, name: str = "chat.jsonl", **options: Any) -> TuluDataModule:
    toy_tokenizer().save_pretrained(folder / "tokenizer")
    if not (folder / name).exists():
        (folder / name).write_bytes(content)
    given = {"path": folder / name, "tokenizer": str(folder / "tokenizer"), "cache_dir": str(folder / "cache")}
    return TuluDataModule(
        **{"template": Turns, "max_length": 48, "batch_size": 4, "validation_size": 10} | given | options
    )


def counted(data: TuluDataModule) -> Counts:
    return sum((part.store.counts for part in data.parts("train")), start=Counts())


@pytest.mark.parametrize("processes", [1, 2])
def test_every_fault_is_counted_under_its_own_name(processes: int, tmp_path: Path) -> None:
    rows = [*ROWS, *(row for rows in WRONG.values() for row in rows)]
    data = module(tmp_path, lines(rows), num_proc=processes)
    counts = counted(data)
    assert counts.dropped == {reason: len(rows) for reason, rows in WRONG.items()}
    assert counts.rows == len(rows) and counts.used == len(ROWS) == counts.rows - counts.wrong
    data.check()
    data.setup("fit")


def test_the_report_names_the_commonest_faults_and_counts_the_others(tmp_path: Path) -> None:
    many = [asked("a", f"role {number}") for number in range(40)]
    data = module(tmp_path, lines([*ROWS, *WRONG["not JSON"], *many]))
    console = Console(width=100)
    with console.capture() as captured:
        console.print(data.report())
    told = captured.get()
    assert "3 rows dropped: not JSON" in told and "1 rows dropped: unknown role 'role" in told
    assert "29 rows dropped for 29 other reasons" in told


@pytest.mark.parametrize("place", [3, 115])
@pytest.mark.parametrize(("reason", "row"), [(reason, rows[0]) for reason, rows in WRONG.items()])
def test_a_wrong_row_stops_a_run_that_is_to_raise(reason: str, row: Any, place: int, tmp_path: Path) -> None:
    data = module(tmp_path, lines([*ROWS[:place], row, *ROWS[place:]]), on_bad_row="raise")
    with pytest.raises(BadData) as caught:
        data.check()
        data.prepare_data()
    told = str(caught.value)
    assert told.startswith(f"{tmp_path}/chat.jsonl, line {place + 1}, cannot be trained on: {reason}. It begins ")
    assert "data.on_bad_row=skip" in told and "\n" not in told and len(told) < 450 + len(str(tmp_path))
    assert not list(tmp_path.glob("cache/documents/*"))


def test_a_row_that_is_only_long_is_not_wrong(tmp_path: Path) -> None:
    for overlong in ("cut", "drop"):
        data = module(tmp_path, lines(ROWS), on_bad_row="raise", overlong=overlong, max_length=12)
        data.check()
        data.prepare_data()
        assert counted(data).dropped


@pytest.mark.parametrize("processes", [1, 2])
def test_rows_that_were_skipped_into_the_cache_still_raise(processes: int, tmp_path: Path) -> None:
    content = lines([*ROWS, asked(None)])
    module(tmp_path, content).prepare_data()
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("cache/documents/*")}
    with pytest.raises(BadData, match="line 121, cannot be trained on: content is null, not text"):
        module(tmp_path, content, on_bad_row="raise", num_proc=processes).prepare_data()
    assert {file: file.stat().st_mtime_ns for file in tmp_path.glob("cache/documents/*")} == before


def test_good_rows_in_the_cache_serve_a_run_that_is_to_raise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module(tmp_path, lines(ROWS)).prepare_data()

    read, refuse = [], tulu.refuse
    monkeypatch.setattr(tulu, "refuse", lambda *given: read.append(given) or refuse(*given))
    module(tmp_path, lines(ROWS), on_bad_row="raise").prepare_data()
    assert not read
    os.utime(tmp_path / "chat.jsonl", (0, 0))  # another file, for all one knows
    module(tmp_path, lines(ROWS), on_bad_row="raise").prepare_data()
    assert read


def test_a_wrong_row_among_those_for_validation_of_a_stream_raises_too(tmp_path: Path) -> None:
    data = module(
        tmp_path, lines([*ROWS[:105], asked(7), *ROWS]), on_bad_row="raise", streaming=True, validation_size=110
    )
    with pytest.raises(BadData, match="line 106, cannot be trained on: content is a number, not text"):
        data.prepare_data()


def wrong_ways() -> Iterator[tuple[dict[str, Any], str]]:
    yield {"on_bad_row": "ignore"}, r"data\.on_bad_row='ignore' is none of skip, raise"
    yield {"num_proc": 0}, r"data\.num_proc=0 is no number of processes: give 1 or more"
    yield {"num_workers": -1}, r"data\.num_workers=-1 is no number of processes: give 0"
    yield {"validation_size": -3}, r"data\.validation_size=-3 must be a fraction or a number of rows above 0"


@pytest.mark.parametrize(("options", "said"), list(wrong_ways()))
def test_options_out_of_range_are_told_before_anything_is_read(
    options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        module(tmp_path, lines(ROWS), **options)


@pytest.mark.parametrize("overlong", ["cut", "whole", "drop"])
def test_a_row_of_ten_megabytes_is_cut_or_dropped_like_any_long_row(overlong: str, tmp_path: Path) -> None:
    short, long = turn("assistant", "3"), turn("assistant", f"{'3' * 999} " * 10_000)
    row = {"messages": [turn("user", "a"), short, turn("user", "b"), long]}
    content = lines([*ROWS, row])
    assert len(content) > 10_000_000
    data = module(tmp_path, gzip.compress(content, 1), "chat.jsonl.gz", overlong=overlong)
    counts = counted(data)
    assert counts.rows == 121 and counts.used == 121 - (overlong == "drop")
    assert counts.cut_inside == (overlong == "cut") and counts.cut_after == (overlong == "whole")
    assert counts.dropped == ({"longer than max_length": 1} if overlong == "drop" else {})
