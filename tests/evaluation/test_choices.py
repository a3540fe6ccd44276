"""Multiple choice by likelihood: what is scored, and what cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dllm_lightning.evaluation import BadChoices, Subject, metrics, read_choices, scored
from dllm_lightning.evaluation.given import TooLong, bounds, encoder_of, with_answer
from dllm_lightning.likelihood import ByCount
from dllm_lightning.types import Canvas
from tests.parrot import TEXT, parrot

ASKED = [{"role": "user", "content": "What is the opposite of hot?"}]


def subject(loaded: Any, **options: Any) -> Subject:
    usual: dict[str, Any] = {"length": 12, "batch_size": 3, "seed": 0, "device": torch.device("cpu")}
    return Subject(loaded, loaded.denoiser(), loaded.sampler, **usual | options)


def write(file: Path, *rows: Any) -> str:
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(file)


def question(*choices: str, answer: Any = 0, **more: Any) -> dict[str, Any]:
    return {"prompt": "What is the opposite of hot?", "choices": list(choices), "answer": answer, **more}


def test_the_most_probable_choice_is_taken(tmp_path: Path) -> None:
    right = question(TEXT, "the opposite of hot is red.", "the opposite of hot is dog.")
    wrong = question("the opposite of hot is red.", TEXT, answer="the opposite of hot is red.")
    whole = {"messages": ASKED, "choices": ["blue blue blue blue.", TEXT], "answer": 1}
    questions = read_choices(write(tmp_path / "asked.jsonl", right, wrong, "", whole))
    found = metrics([scored(subject(parrot()), questions, ByCount(), 32)])
    assert found["choice_accuracy"] == found["choice_accuracy_per_token"] == pytest.approx(2 / 3)
    assert found["choice_chance"] == pytest.approx((1 / 3 + 1 / 2 + 1 / 2) / 3)
    assert found["choice_close"] == 0.0 and 0.1 < found["choice_accuracy_error"] < 0.4


def test_equal_choices_would_be_close(tmp_path: Path) -> None:
    """To a parrot no letter is more probable than another."""
    alike = question("red", "blue")
    found = metrics(
        [scored(subject(parrot(text="cold")), read_choices(write(tmp_path / "a.jsonl", alike)), ByCount(), 4)]
    )
    assert found["choice_close"] == 1.0


def test_only_the_last_answer_is_in_question_filled_with_ends_as_in_training() -> None:
    loaded = parrot(length=6)
    encoder = encoder_of(subject(loaded))
    talk = [*ASKED, {"role": "assistant", "content": "cold"}, *ASKED]
    document = with_answer(encoder, talk, "red")
    assert document.editable.count(True) == 6 and document.editable[-6:] == [True] * 6
    assert document.ids[-5:] == [encoder.template.end_id] * 5
    with pytest.raises(TooLong, match=r"tokens are more than the 40 that this model reads"):
        with_answer(encoder, ASKED, "red " * 60)


def test_bounds_do_not_depend_on_the_batch() -> None:
    loaded = parrot(length=6)
    encoder = encoder_of(subject(loaded))
    documents = [with_answer(encoder, ASKED, text) for text in ("red", "the opposite", "cold blue red green")]
    few, many = (bounds(subject(loaded, batch_size=n), documents, [3, 1, 3], ByCount(), 4) for n in (1, 8))
    assert torch.allclose(few, many)
    assert isinstance(Canvas.left_padded(documents, 0), Canvas)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("nonsense", "line 1 is not JSON (Expecting value)."),
        ("[1]", 'line 1 asks nothing: it has neither a "prompt" nor "messages".'),
        ({"choices": ["a", "b"], "answer": 0}, 'asks nothing: it has neither a "prompt" nor "messages".'),
        (question("a") | {"prompt": " "}, "line 1 cannot be answered: empty content."),
        (
            question("a", "b") | {"messages": [{"role": "assistant", "content": "b"}]},
            "cannot be answered: roles out of order",
        ),
        (question("red"), "line 1 has choices=['red']: give a list of at least two different texts."),
        (question("red", "red"), "give a list of at least two different texts."),
        (question("red", " "), "give a list of at least two different texts."),
        (question("red", "blue", answer=2), "line 1 has answer=2: give one of its choices, or its number, from 0."),
        (question("red", "blue", answer="green"), "line 1 has answer='green'"),
        (question("red", "blue", answer=True), "line 1 has answer=True"),
        ({"prompt": "a?", "choices": ["a", "b"]}, "line 1 has answer=None"),
    ],
    ids=str,
)
def test_what_is_no_question_is_told_with_its_line(tmp_path: Path, row: Any, said: str) -> None:
    with pytest.raises(BadChoices) as refused:
        read_choices(write(tmp_path / "asked.jsonl", row))
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_file_without_questions_is_told_too(tmp_path: Path) -> None:
    with pytest.raises(BadChoices, match="asks nothing: it has no line with a question"):
        read_choices(write(tmp_path / "asked.jsonl", ""))
    with pytest.raises(BadChoices, match=r"There is no file choices='no.jsonl'"):
        read_choices("no.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b"caf\xe9")
    with pytest.raises(BadChoices, match="is not UTF-8 text"):
        read_choices(str(tmp_path / "latin.jsonl"))
    long = question("red", "red " * 90)
    with pytest.raises(BadChoices, match=r"line 1 is too long with 'red red .* tokens are more than the 40"):
        scored(subject(parrot()), read_choices(write(tmp_path / "long.jsonl", long)), ByCount(), 2)
