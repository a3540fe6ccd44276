"""Documents are cut as promised, every row is accounted for, and what is kept on disk is what was made."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dllm_lightning.data.documents import Counts, Encoded, Encoder, tokenise
from dllm_lightning.data.messages import Unread
from dllm_lightning.data.original import Original
from dllm_lightning.data.store import Documents, Part, Store
from dllm_lightning.data.template import Document
from dllm_lightning.data.toy import generate, toy_tokenizer
from dllm_lightning.data.turns import Turns

TEMPLATE = Turns(toy_tokenizer())
END = TEMPLATE.end_id
ROWS: list[Any] = list(generate("train", 60, turns=3))


def document(*runs: int) -> Document:
    """Runs of question and answer in turn, ids counted from 100: document(3, 2) asks in 3 ids and answers in 2."""
    editable = [place % 2 == 1 for place, length in enumerate(runs) for _ in range(length)]
    return Document([*range(100, 100 + len(editable))], editable)


def fit(runs: tuple[int, ...], **options: Any) -> tuple[Document | None, Counts]:
    counts = Counts()
    return Encoder(TEMPLATE, **options).fit(document(*runs), counts), counts


def test_a_document_that_fits_stays_as_it_is() -> None:
    assert fit((3, 2, 3, 2), max_length=10) == (document(3, 2, 3, 2), Counts(fitting=4))


def test_cut_keeps_all_that_fits_and_a_cut_answer_has_no_end() -> None:
    assert fit((3, 2, 3, 4), max_length=10) == (document(3, 2, 3, 2), Counts(fitting=4, cut_inside=1))
    assert fit((3, 9), max_length=5) == (document(3, 2), Counts(fitting=2, cut_inside=1))


def test_cut_leaves_no_question_without_an_answer() -> None:
    assert fit((3, 2, 7, 2), max_length=9) == (document(3, 2), Counts(fitting=2, cut_after=1))


def test_an_answer_that_just_fits_keeps_its_end() -> None:
    assert fit((3, 2, 3, 2, 1, 1), max_length=10) == (document(3, 2, 3, 2), Counts(fitting=4, cut_after=1))


def test_whole_keeps_only_answers_that_fit_whole() -> None:
    assert fit((3, 2, 3, 4), max_length=10, overlong="whole") == (document(3, 2), Counts(fitting=4, cut_after=1))
    gone, counts = fit((3, 9), max_length=5, overlong="whole")
    assert gone is None and counts.dropped == {"no answer fits into max_length": 1}


def test_drop_drops() -> None:
    gone, counts = fit((3, 2, 3, 4), max_length=10, overlong="drop")
    assert gone is None and counts.dropped == {"longer than max_length": 1}


def test_a_question_that_leaves_no_room_is_dropped_and_counted() -> None:
    gone, counts = fit((5, 2), max_length=5)
    assert gone is None and counts.dropped == {"no answer fits into max_length": 1} and counts.fitting == 0


@pytest.mark.parametrize(("answer_length", "filled"), [(2, 0), (5, 3), (50, 5)])
def test_a_short_answer_is_filled_with_ends_as_far_as_there_is_room(answer_length: int, filled: int) -> None:
    made, counts = fit((1, 1, 1, 2), max_length=10, answer_length=answer_length)
    whole = document(1, 1, 1, 2)
    assert made == Document(whole.ids + [END] * filled, whole.editable + [True] * filled)
    assert counts.tail == filled


def test_a_cut_answer_is_not_filled() -> None:
    made, counts = fit((3, 9), max_length=5, answer_length=8)
    assert made == document(3, 2) and counts.tail == 0


@pytest.mark.parametrize("option", [{"max_length": 0}, {"answer_length": 0}, {"overlong": "crop"}])
def test_options_out_of_range_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="|".join(f"{name}={value!r}" for name, value in option.items())):
        Encoder(TEMPLATE, **{"max_length": 8} | option)


def test_every_row_is_used_or_dropped_with_a_reason() -> None:
    def turn(role: str, content: Any = "two") -> dict[str, Any]:
        return {"role": role, "content": content}

    bad = [
        None, {}, {"messages": None}, {"messages": []}, {"messages": "two"}, {"messages": [turn("user")]},
        {"messages": [turn("user", " "), turn("assistant")]}, {"messages": [turn("user"), turn("assistant", None)]},
        {"messages": [turn("robot"), turn("assistant")]}, {"messages": [turn("assistant"), turn("user")]}, [], 7,
        Unread("not JSON", "{"), Unread("not UTF-8", "x"),
    ]  # fmt: skip
    made = Encoder(TEMPLATE, 40, "drop")([*bad, *ROWS])
    counts = made.counts
    assert counts.rows == len(bad) + len(ROWS) == counts.used + counts.dropped.total()
    assert counts.dropped.total() - counts.dropped["longer than max_length"] == len(bad)
    reasons = {
        "not a mapping": 3, "no messages": 3, "messages is text, not a list": 1, "no answer": 1, "empty content": 1,
        "content is null, not text": 1, "unknown role 'robot'": 1, "roles out of order": 1,
        "not JSON": 1, "not UTF-8": 1,
    }  # fmt: skip
    assert reasons.items() <= counts.dropped.items() and counts.wrong == len(bad)
    assert counts.used == len(made.lengths) and counts.tokens == made.lengths.sum() == len(made.ids)
    assert counts.answer_tokens == made.editable.sum()


def test_filled_ends_are_not_counted_as_answers() -> None:
    plain, filled = (Encoder(TEMPLATE, 99, answer_length=length)(ROWS).counts for length in (None, 30))
    assert filled.answer_tokens == plain.answer_tokens and filled.tokens == plain.tokens + filled.tail > plain.tokens


def chunks(**options: Any) -> Iterator[Encoded]:
    return tokenise(ROWS * 40, Encoder(TEMPLATE, 48, "drop"), **options)


def same(left: Store, right: Store) -> bool:
    arrays = ("ids", "editable", "starts", "rows")
    return left.counts == right.counts and all(np.array_equal(getattr(left, a), getattr(right, a)) for a in arrays)


def test_a_store_on_disk_is_the_store_in_memory(tmp_path: Path) -> None:
    held, written = Store.of(chunks()), Store.write(tmp_path / "store", chunks())
    assert same(held, written) and same(held, Store.open(tmp_path / "store"))
    assert same(held, pickle.loads(pickle.dumps(written))) and len(pickle.dumps(written)) < 1000
    row = ROWS[held.rows[5]]["messages"]
    assert held[5].ids.tolist() == TEMPLATE.encode([row])[0].ids


def test_rows_are_numbered_through_all_chunks() -> None:
    held = Store.of(chunks())
    assert len(held) > 1000 and (np.diff(held.rows) > 0).all() and held.rows[-1] < held.counts.rows == 2400


def test_several_processes_make_the_same_documents(tmp_path: Path) -> None:
    assert same(Store.write(tmp_path / "store", chunks(processes=2)), Store.of(chunks()))


def test_a_store_whose_making_failed_leaves_nothing_behind(tmp_path: Path) -> None:
    def failing() -> Iterator[Encoded]:
        yield next(chunks())
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        Store.write(tmp_path / "store", failing())
    assert not list(tmp_path.iterdir())


def test_a_store_without_documents_opens(tmp_path: Path) -> None:
    store = Store.write(tmp_path / "store", tokenise([{}, {}], Encoder(TEMPLATE, 8)))
    assert len(store) == 0 and store.counts.dropped == {"no messages": 2}


def test_documents_are_numbered_through_their_parts() -> None:
    store = Store.of(chunks())
    documents = Documents([Part("a", store, np.array([4, 2]), 1.0), Part("b", store, np.array([0]), 0.5)])
    assert documents.weights.tolist() == [1.0, 1.0, 0.5]
    assert documents.lengths.tolist() == store.lengths[[4, 2, 0]].tolist()
    assert [d.ids.tolist() for d in documents[[2, 0]]] == [store[0].ids.tolist(), store[4].ids.tolist()]


def test_the_fingerprint_tells_encoders_apart() -> None:
    makers = [
        Encoder(TEMPLATE, 48), Encoder(TEMPLATE, 47), Encoder(TEMPLATE, 48, "drop"), Encoder(TEMPLATE, 48, "cut", 8),
        Encoder(Turns(toy_tokenizer(), answers="last"), 48), Encoder(Original(toy_tokenizer()), 48),
    ]  # fmt: skip
    assert len({maker.fingerprint for maker in makers}) == len(makers)
    assert Encoder(Turns(toy_tokenizer()), 48).fingerprint == makers[0].fingerprint
