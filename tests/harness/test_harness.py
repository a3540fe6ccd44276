"""Tasks of lm-evaluation-harness on a parrot, where the harness is installed (extra `eval`)."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("lm_eval")

from dllm_lightning.evaluation import Subject
from dllm_lightning.harness import DiffusionLM
from dllm_lightning.harness.conversation import read, written
from dllm_lightning.likelihood import ByCount
from tests.conf.configurations import Terminal
from tests.parrot import TEXT, parrot

ASKED = {"role": "user", "content": "What is the opposite of hot?"}
OTHER = "the opposite of hot is red."
COMMON = """
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
doc_to_text: "{{question}}"
"""


@pytest.fixture
def model() -> DiffusionLM:
    """A parrot with twelve slots for an answer, which it fills with its words and ends."""
    loaded = parrot()
    subject = Subject(loaded, loaded.denoiser(), loaded.sampler, 12, 4, 0, torch.device("cpu"))
    return DiffusionLM(subject, ByCount(), draws=8)


def requests(*arguments: tuple[Any, ...]) -> list[Any]:
    return [SimpleNamespace(args=each) for each in arguments]


def asked(*more: dict[str, str]) -> str:
    """What the harness gets for a question, and hands over."""
    return written([ASKED, *more])


def test_messages_come_back_as_they_were_and_text_is_a_users_first_word() -> None:
    odd = {"role": "user", "content": '[MASK] \x00 \\ " {x}\n'}
    assert read(written([odd])) == ([odd], "")
    assert read(written([odd, {"role": "assistant", "content": "it"}])) == ([odd], "it")
    assert read(" a question ") == ([{"role": "user", "content": "a question"}], "")


def test_the_parrots_words_are_the_most_probable_and_what_it_would_write(model: DiffusionLM) -> None:
    (right, would), (wrong, not_so) = model.loglikelihood(requests((asked(), TEXT), (asked(), f" {OTHER}")))
    assert wrong < right < 0 and would and not not_so
    plain, _ = model.loglikelihood(requests((ASKED["content"], f" {TEXT}")))[0]
    assert plain == right  # the same conversation
    silent = DiffusionLM(model.subject, ByCount(), draws=8, greedy=False)
    assert silent.loglikelihood(requests((asked(), TEXT))) == [(right, False)]


def test_what_an_answer_begins_with_is_given_and_not_scored(model: DiffusionLM) -> None:
    begun = asked({"role": "assistant", "content": "the opposite of hot is"})
    document, whole = model._given(begun, " cold."), model._given(asked(), TEXT)
    assert document.ids == whole.ids and sum(document.editable) == sum(whole.editable) - 5
    assert model.loglikelihood(requests((begun, " cold."), (begun, " red.")))[0][1]


def test_a_long_context_loses_its_beginning_and_no_answer(model: DiffusionLM) -> None:
    document = model._given(written([{"role": "user", "content": "red " * 90}]), TEXT)
    assert len(document.ids) == 40 and sum(document.editable) == 12


def test_a_text_is_scored_once_in_pieces_behind_as_much_as_can_be_read(model: DiffusionLM) -> None:
    text = " ".join(["red blue green dog cat"] * 19)
    ids = model.encoder.template.plain.encode([text])[0]
    pieces = model._pieces(text)
    assert [i for piece in pieces for i, new in zip(*piece, strict=True) if new] == ids
    assert all(len(piece.ids) <= 40 for piece in pieces) and len(pieces[1].ids) == 40
    short, long, empty = model.loglikelihood_rolling(requests(("red blue",), (text,), ("",)))
    assert long < short < 0 == empty


def test_texts_are_cut_where_they_shall_end(model: DiffusionLM) -> None:
    wanted = [{"until": [" hot", "cold"]}, {"until": "cold"}, {"until": []}, {"until": ["x"], "max_gen_toks": 9}]
    texts = model.generate_until(requests(*((asked(), each) for each in wanted)))
    assert texts == ["the opposite of", "the opposite of hot is ", TEXT, "hot is cold."]  # the last nine of its slots
    begun = asked({"role": "assistant", "content": "well"})
    assert model.generate_until(requests((begun, {"until": []}))) == [TEXT]


def test_a_task_of_ones_own_is_measured_like_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [{"question": ASKED["content"], "choices": [OTHER, TEXT], "gold": n < 3, "answer": TEXT} for n in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = COMMON % (tmp_path / "rows.jsonl")
    choose = 'task: choose\noutput_type: multiple_choice\ndoc_to_choice: "{{choices}}"\ndoc_to_target: "{{gold|int}}"\n'
    say = 'task: say\noutput_type: generate_until\ndoc_to_target: "{{answer}}"\ngeneration_kwargs: {until: ["!"]}\n'
    (tmp_path / "choose.yaml").write_text(f"{choose}{common}metric_list: [{{metric: acc}}]\n")
    (tmp_path / "say.yaml").write_text(f"{say}{common}metric_list: [{{metric: exact_match}}]\n")
    monkeypatch.setattr("dllm_lightning.measures.load", lambda path, device: parrot())
    evaluate = Terminal(tmp_path, monkeypatch, capfd)
    usual = ["ckpt=x", "nelbo=false", "answers=false", "draws=8", "format=json", "run=own"]
    ran = evaluate(*usual, "tasks=[choose.yaml,say.yaml]", "shots=0", entry="evaluate")
    assert ran.code == 0, ran.err
    assert "fatal" not in ran.err  # from git, which the harness would ask where there is no repository
    found = json.loads((tmp_path / "runs" / "evaluations" / "own" / "result.json").read_text())
    metrics = found["metrics"]
    assert metrics["choose/acc"] == 0.75 and metrics["choose/acc_error"] == pytest.approx(0.25)
    assert metrics["say/exact_match"] == 1.0 and found["how"]["tasks"]["tasks"] == {"choose": 4, "say": 4}
    for tasks, said in (
        ("[no.yaml]", "There is no file 'no.yaml' in tasks: give the YAML of a task, or a task's name."),
        ("[arc_esy]", "lm-evaluation-harness has no task 'arc_esy'. Did you mean"),
    ):
        told = evaluate(*usual, f"tasks={tasks}", entry="evaluate")
        assert told.code == 2 and said in told.err.splitlines()[-1]
