"""The laws of the toy chat: every right answer passes, wrong ones do not, and no problem is in two splits."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from dllm_lightning.data.toy import LEVELS, Question, check, generate, split_of, task_of, tasks
from dllm_lightning.data.toy.task import words

every_task = pytest.mark.parametrize("name", sorted(tasks()))
every_level = pytest.mark.parametrize("level", LEVELS)
OPEN = ("between", "name", "shuffle", "sum_to")


def questions(name: str, level: int = 1, size: int = 200) -> list[Question]:
    random = Random(f"{name} {level}")
    return [tasks()[name].ask(random, level) for _ in range(size)]


@every_task
@every_level
def test_the_answer_that_comes_with_a_question_is_right(name: str, level: int) -> None:
    assert all(check(question.text, question.answer) for question in questions(name, level))


@every_task
@every_level
def test_a_question_belongs_to_one_task_alone(name: str, level: int) -> None:
    for question in questions(name, level):
        assert [task.name for task in tasks().values() if task.understand(question.text) is not None] == [name]


@every_task
def test_an_answer_to_nothing_is_wrong(name: str) -> None:
    for question in questions(name, size=50):
        for answer in ("", ",", "nothing", "zebra zebra", f"{question.answer} {question.answer}"):
            assert not check(question.text, answer)


@every_task
def test_capitals_commas_and_word_spacing_do_not_change_a_judgement(name: str) -> None:
    for question in questions(name, size=50):
        said = "  ".join(words(question.answer)).upper() + "."
        assert check(question.text.upper().replace("?", " ?"), said)


@every_task
def test_every_task_is_worded_in_several_ways(name: str) -> None:
    openings = {question.text.split()[0] for question in questions(name)}
    assert len(openings) >= 2


@every_task
def test_higher_levels_ask_longer_questions_or_larger_numbers(name: str) -> None:
    lengths = [sum(len(q.text + q.answer) for q in questions(name, level)) for level in LEVELS]
    assert lengths == sorted(lengths)
    assert len(set(lengths)) == len(LEVELS)


@pytest.mark.parametrize(
    ("question", "right", "wrong"),
    [
        ("What is 3+4?", ["7", "7."], ["8", "3 4", "seven", "07 1"]),
        ("What is 13 minus 5?", ["8"], ["18", "-8"]),
        ("Please take 5 from 3.", [], ["2", "-2", "0"]),
        ("Which is larger, 9 or 13?", ["13"], ["9", "9 13"]),
        ("Sort 7, 2, 5.", ["2, 5, 7", "2 5 7"], ["2, 5", "7, 5, 2", "257"]),
        ("Repeat a, dog, 7.", ["a, dog, 7"], ["a, 7, dog", "a, dog"]),
        ("Say backwards: a, dog, 7.", ["7, dog, a"], ["a, dog, 7"]),
        ("How often do you see cat in cat, dog, cat?", ["2"], ["3", "two"]),
        ("What is the capital of France?", ["paris", "Paris"], ["rome", "paris and rome"]),
        ("What does the cow say?", ["moo"], ["meow"]),
        ("What are the opposites of big and hot?", ["small and cold"], ["cold and small", "small"]),
        ("What comes after Sunday?", ["monday"], ["saturday"]),
        ("What comes two places before February?", ["december"], ["january"]),
        ("Find the odd one: apple, dog, plum.", ["dog"], ["apple", "pear"]),
        ("Shuffle a, b, c.", ["b, a, c", "c, b, a"], ["a, b, c", "a, a, c", "b, a", "b, a, c, d"]),
        ("Name three different fruits.", ["apple, pear and plum", "fig plum pear"], ["fig fig pear", "fig dog pear"]),
        ("Name two tools, but not saw.", ["axe and pen"], ["axe and saw", "axe"]),
        ("Name two fruits and two tools.", ["fig, plum, axe and pen", "axe pen fig plum"], ["fig plum pear and pen"]),
        ("Which two numbers sum to 13?", ["4 and 9", "13 and 0"], ["4 and 8", "13", "4, 4 and 5", "4 and nine"]),
        ("Which two numbers are between 3 and 7?", ["4 and 6", "5 4"], ["3 and 5", "4 and 4", "5"]),
    ],
)  # fmt: skip
def test_answers_are_judged_as_a_person_would(question: str, right: list[str], wrong: list[str]) -> None:
    assert [answer for answer in right if not check(question, answer)] == []
    assert [answer for answer in wrong if check(question, answer)] == []


@pytest.mark.parametrize("name", OPEN)
def test_open_tasks_have_many_right_answers(name: str) -> None:
    task, random = tasks()[name], Random(0)
    question = task.ask(random, 1)
    fields = task.understand(question.text)
    assert fields is not None
    answers = {task.solve(fields, random) for _ in range(200)}
    assert len(answers) >= 3
    assert all(check(question.text, answer) for answer in answers)


def test_at_least_nine_tasks_and_three_of_them_open() -> None:
    assert len(tasks()) >= 9
    assert len(OPEN) >= 3
    assert set(OPEN) <= set(tasks())


def test_no_question_is_in_two_splits_whatever_the_seed_size_and_level() -> None:
    asked: dict[str, set[str]] = {}
    for split in ("train", "validation", "test"):
        for seed, size, level in ((0, 500, 1), (1, 200, 1), (2, 150, (1, 2, 3))):
            rows = generate(split, size, seed, level=level, turns=1 + seed)
            said = (message["content"] for row in rows for message in row["messages"] if message["role"] == "user")
            asked.setdefault(split, set()).update(map(str.lower, said))
    assert asked["train"].isdisjoint(asked["validation"] | asked["test"])
    assert asked["validation"].isdisjoint(asked["test"])


def test_case_spacing_and_the_closing_sign_do_not_move_a_question_to_another_split() -> None:
    for question in questions("add"):
        assert split_of(question.text) == split_of(f"  {question.text.upper().rstrip('?.')} ?")


def test_eight_tenths_of_the_questions_are_for_training() -> None:
    counts = Counter(split_of(question.text) for question in questions("copy", level=3, size=3000))
    assert 2250 < counts["train"] < 2550
    assert 240 < counts["validation"] < 360
    assert 240 < counts["test"] < 360


@every_task
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_task_has_several_questions_in_every_split(name: str, split: str) -> None:
    rows = generate(split, 60, tasks=[name])
    assert {row["task"] for row in rows} == {name}
    assert len({row["messages"][0]["content"] for row in rows}) >= 8


def test_a_small_chat_is_the_beginning_of_a_large_one_and_a_seed_changes_it() -> None:
    assert generate("train", 20) == generate("train", 50)[:20]
    assert generate("train", 20) != generate("train", 20, seed=1)
    assert generate("train", 0) == []


def test_a_task_named_twice_comes_twice_as_often() -> None:
    counts = Counter(row["task"] for row in generate("train", 900, tasks=["copy", "copy", "add"]))
    assert 500 < counts["copy"] < 700


def test_turns_and_a_system_message_make_conversations() -> None:
    rows = generate("train", 60, turns=3, system="Answer in a few words.")
    assert {len(row["messages"]) for row in rows} == {3, 5, 7}
    for row in rows:
        system, *turns = row["messages"]
        assert system == {"role": "system", "content": "Answer in a few words."}
        assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2)
        assert all(
            check(ask["content"], answer["content"]) for ask, answer in zip(turns[::2], turns[1::2], strict=True)
        )
        assert row["task"] == task_of(turns[-2]["content"]).name
    assert len({row["id"] for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        (lambda: generate("dev", 1), "dev"),  # type: ignore[arg-type]
        (lambda: generate("train", -1), "size=-1"),
        (lambda: generate("train", 1, turns=0), "turns=0"),
        (lambda: generate("train", 1, tasks=["chess"]), "chess"),
        (lambda: generate("train", 1, tasks=[]), "copy"),
        (lambda: generate("train", 1, level=4), "4"),
        (lambda: generate("train", 1, level=[]), "level"),
        (lambda: tasks()["add"].ask(Random(0), 0), "0"),
        (lambda: check("Why is there something?", "because"), "Why is there something?"),
        (lambda: tasks()["add"].check("Repeat a, b.", "a, b"), "Repeat a, b."),
    ],
)
def test_wrong_requests_are_refused_by_name(call, shown: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=shown.replace("?", r"\?").replace(".", r"\.")):
        call()
