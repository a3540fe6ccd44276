"""Text with gaps as ids and back, for every kind of tokenizer: the pieces keep the ids of running text, and their
letters."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from dllm_lightning.data import Native, Original, Turns
from dllm_lightning.data.gaps import gapped
from dllm_lightning.data.infill import Infill
from dllm_lightning.data.template import ChatTemplate
from dllm_lightning.data.toy import toy_tokenizer
from tests.data.test_template import CHATML, byte_tokenizer, word_tokenizer

ASKED = [{"role": "user", "content": "two?"}]
TEXT = "the opposite of hot is cold, and two be one: yes.\n\n  Then three\tfour (or 12) end."


def metaspace() -> PreTrainedTokenizerFast:
    """XLM-R's kind: a space is a part of the next word, and the first word has one too."""
    letters = sorted({*TEXT, *"?User:Assistant", "a"} - {*" \n\t"})
    words = [
        "\N{LOWER ONE EIGHTH BLOCK}the",
        "\N{LOWER ONE EIGHTH BLOCK}of",
        "\N{LOWER ONE EIGHTH BLOCK}",
        "is",
        *letters,
    ]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"[unused{i}]" for i in range(4))]
    pieces = [(word, 0.0) for word in special] + [(word, -len(words) / len(word)) for word in words]
    backend = Tokenizer(models.Unigram(pieces, unk_id=1))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    names = {f"{word.strip('[]').lower()}_token": word for word in special[:5]}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


KINDS: dict[str, Callable[[], ChatTemplate]] = {
    "toy": lambda: Turns(toy_tokenizer()),
    "toy, original": lambda: Original(toy_tokenizer()),
    "words": lambda: Turns(word_tokenizer()),
    "words, native": lambda: Native(word_tokenizer(CHATML)),
    "bytes": lambda: Turns(byte_tokenizer()),
    "bytes, original": lambda: Original(byte_tokenizer()),
    "metaspace": lambda: Turns(metaspace()),
}


@cache
def template(kind: str) -> ChatTemplate:
    return KINDS[kind]()


every_kind = pytest.mark.parametrize("kind", KINDS)
by_itself_and_as_an_answer = pytest.mark.parametrize("messages", [[], ASKED], ids=["alone", "answer"])


def infill(source: str, messages: list[dict[str, str]] | None = None) -> Infill:
    return Infill(source, gapped(source), messages or [])


def cuts() -> list[tuple[str, str, str]]:
    """One to three words of the text, with what stands before them and what behind."""
    found = []
    for words in (1, 2, 3):
        for match in re.finditer(rf"(?=(?<!\S)(\S+(?: \S+){{{words - 1}}})(?!\S))", TEXT):
            start, stop = match.span(1)
            found.append((TEXT[:start], TEXT[start:stop], TEXT[stop:]))
    return found


@every_kind
@by_itself_and_as_an_answer
def test_the_pieces_have_the_ids_of_running_text_and_come_back_letter_by_letter(
    kind: str, messages: list[dict[str, str]]
) -> None:
    """Words are cut out of a text. With their own tokens in the gap the row is that of the text, and the text it is."""
    talk = template(kind)
    around, turn = talk.until_answer(messages) if messages else ([*talk.alone.before], talk.alone)
    for before, words, behind in cuts():
        closed = turn.end if behind or not messages else ()
        whole = [*around, *talk.plain.encode([turn.text(f"{before}{words}{behind}")])[0], *closed]
        document = infill(f"{before}[[1]]{behind}", messages).document(talk, 5)
        left = document.editable.index(True)
        right = len(document.ids) - left - 1
        cut_out = whole[left : len(whole) - right]
        asked = infill(f"{before}[[{len(cut_out)}]]{behind}", messages)
        document = asked.document(talk, 5)
        assert document.editable == [False] * left + [True] * len(cut_out) + [False] * right
        kept = [i for i, editable in zip(document.ids, document.editable, strict=True) if not editable]
        assert kept == whole[:left] + whole[left + len(cut_out) :]
        read = asked.read(talk, cut_out)
        assert read.text.startswith(before) and read.text.endswith(behind) and read.tokens == len(cut_out)
        if talk.plain.decode(talk.plain.encode([words])[0]) == words:  # a tokenizer may spell it otherwise
            assert read.filled == [words]


SOURCES = [
    "the [[4]] of hot is cold",
    "[[2]] [[1]], yes [[3]].",
    "[[1]][[2]]is[[1]]",
    "be:\n\n[[2]]\n  end",
    r"\[[4]] [MASK][[2]] [SEP] [unused2][[1]]",
    "one [[2]]",
    "[[3]]",
]


@every_kind
@by_itself_and_as_an_answer
@pytest.mark.parametrize("source", SOURCES)
def test_whatever_is_written_into_the_gaps_the_pieces_stay(
    kind: str, messages: list[dict[str, str]], source: str
) -> None:
    """Also ids that no text has: they count as tokens, and have no text."""
    talk, asked, draw = template(kind), infill(source, messages), random.Random(0)
    pieces, gaps = asked.text
    for _ in range(20):
        ids = [draw.randrange(len(talk.tokenizer)) for _ in range(sum(gaps))]
        text, _, filled = asked.read(talk, ids)
        assert filled is not None and len(filled) == len(gaps)
        assert text == pieces[0] + "".join(a + b for a, b in zip(filled, pieces[1:], strict=True))
    assert asked.slots(99) == sum(gaps) == asked.document(talk, 99).editable.count(True)


@every_kind
@by_itself_and_as_an_answer
@pytest.mark.parametrize("source", SOURCES)
def test_what_is_given_can_neither_be_a_mask_nor_a_marker(
    kind: str, messages: list[dict[str, str]], source: str
) -> None:
    talk, asked = template(kind), infill(source, messages)
    around, turn = talk.until_answer(messages) if messages else ([*talk.alone.before], talk.alone)
    ids, editable = asked.document(talk, 5)
    text = ids[len(around) :] if asked.ending(5) else ids[len(around) : len(ids) - len(turn.end)]
    given = [i for i, gap in zip(text, editable[len(around) :], strict=False) if not gap]
    assert ids[: len(around)] == around and talk.control_ids.isdisjoint(given)
    assert asked.given(talk) == editable.index(True) - len(around)


@every_kind
def test_a_gap_alone_is_an_answer_like_any_other(kind: str) -> None:
    talk, asked = template(kind), infill("[[5]]", ASKED)
    assert asked.document(talk, 99) == talk.prompt(ASKED, 5) and asked.ending(99) == 5
    ids = [*talk.plain.encode(["two be"])[0], talk.end_id, *talk.plain.encode(["one"])[0]]
    assert asked.read(talk, ids[:5])[:2] == (talk.answer(ids[:5]), len(talk.until_end(ids[:5])))


def test_an_end_is_expected_only_where_an_answer_ends_in_a_gap() -> None:
    endings = {source: (infill(source).ending(9), infill(source, ASKED).ending(9)) for source in SOURCES}
    assert [*endings.values()] == [(0, 0), (0, 0), (0, 1), (0, 0), (0, 1), (0, 2), (0, 3)]


def test_an_end_that_is_written_all_the_same_ends_its_gap_and_not_the_text() -> None:
    talk = template("toy")
    hot, cold, end = *talk.plain.encode(["hot cold"])[0], talk.end_id
    assert infill("A [[3]] and [[2]].").read(talk, [hot, end, cold, end, hot]) == ("A hot and .", 1, ["hot", ""])
    assert infill("A [[2]][[2]]", ASKED).read(talk, [end, hot, cold, end]) == ("A cold", 1, ["", "cold"])


@pytest.mark.parametrize(
    ("source", "words", "text"),
    [
        ("The [[1]] of", " hot", "The hot of"),
        ("The [[1]].", " hot", "The hot."),
        ("The[[1]]of", " hot", "The hot of"),
        ("[[1]], he said", "hot", "hot, he said"),
        ("Say:\n[[1]]\nEnd", "hot", "Say:\nhot\nEnd"),
        ("([[1]])", "hot", "( hot )"),  # as the tokenizer writes it, where nobody says otherwise
        ("is [[1]] it", ",", "is , it"),
    ],
)
def test_spaces_stand_where_they_were_given_or_else_where_the_tokenizer_writes_them(
    source: str, words: str, text: str
) -> None:
    talk = template("toy")
    assert infill(source).read(talk, talk.plain.encode([words])[0]).text == text


def test_a_space_that_the_next_word_writes_is_no_token_before_a_gap() -> None:
    talk = template("bytes")
    two, letters = [*talk.plain.encode([" two"])[0]], talk.plain.encode(["x"])[0]
    assert len(two) == 1
    for source, given in (
        ("x [[1]]", "x"),
        ("x  [[1]]", "x "),
        ("x[[1]]", "x"),
        ("x\n[[1]]", "x\n"),
        ("x \n [[1]]", "x \n"),
    ):
        document = infill(source).document(talk, 5)
        assert talk.plain.decode(document.ids[len(talk.alone.before) : document.editable.index(True)]) == given
    assert infill("x [[1]]").read(talk, two).filled == ["two"]
    assert infill("x[[1]]").read(talk, two).filled == [" two"]
    assert infill("x [[1]]").read(talk, letters).text == "x x"  # the space is given, whatever is written


def test_an_answer_is_ended_by_its_template_where_it_ends_with_something_given() -> None:
    talk = template("words, native")
    ids = infill("two [[1]] four", ASKED).document(talk, 5).ids
    assert ids[-1] == talk.end_id and ids.count(talk.end_id) == 2  # of the question, and of the answer
    assert infill(" two [[1]] ", ASKED).document(talk, 5).ids[-1] == talk.end_id
    assert infill("two [[1]]", ASKED).document(talk, 5).ids[-1] == talk.tokenizer.mask_token_id


def test_a_text_by_itself_stands_between_what_its_tokenizer_puts_around_a_text() -> None:
    talk = template("toy")
    ids = infill("the [[1]] of").document(talk, 5).ids
    assert [ids[0], ids[-1]] == [talk.tokenizer.cls_token_id, talk.tokenizer.sep_token_id]
    assert template("words").alone == ((), "", (), False)


def test_half_a_character_in_a_gap_harms_nobody_else() -> None:
    talk = template("bytes")
    half = talk.plain.encode(["é"])[0][:1]
    assert infill("x[[1]]y[[1]]z").read(talk, half * 2).text == "x�y�z"


@pytest.mark.parametrize("name", ["modernbert-base", "bert-base-uncased"])
def test_with_real_tokenizers_too(data_root: Path, name: str) -> None:
    KINDS[name] = lambda: Turns(AutoTokenizer.from_pretrained(data_root / "tokenizers" / name))
    for messages in ([], ASKED):
        test_the_pieces_have_the_ids_of_running_text_and_come_back_letter_by_letter(name, messages)
    asked = infill("The [[2]] of France is Paris.")
    assert asked.read(template(name), template(name).plain.encode([" capital city"])[0]).text == (
        "The capital city of France is Paris."
    )
