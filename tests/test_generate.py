"""python -m dllm_lightning.generate: what is asked, who answers, and in which form."""

from __future__ import annotations

import io
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hydra.core.global_hydra import GlobalHydra

from dllm_lightning.sampler import Cap, Plateau, Psi
from tests.parrot import TEXT, parrot

ODD = "What is 3 = ? {a}, [b] ${c} 'q' \"r\" \\\nnext"


class Said(NamedTuple):
    """What a call printed, and its exit code."""

    out: str
    err: str
    code: int

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Generate = Callable[..., Said]


@pytest.fixture
def generate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Generate:
    """Runs the entry point with these arguments and this standard input, in an empty folder; a parrot answers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.delenv("DLLM_DEBUG", raising=False)
    monkeypatch.setattr("dllm_lightning.loading.load", lambda path, device: parrot())

    def run(*arguments: str, stdin: str = "", ckpt: str | None = "model.ckpt") -> Said:
        given = [] if ckpt is None else [f"ckpt={ckpt}"]
        monkeypatch.setattr(sys, "argv", ["generate", *given, *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        monkeypatch.delitem(sys.modules, "dllm_lightning.generate", raising=False)
        code = 0
        try:
            runpy.run_module("dllm_lightning.generate", run_name="__main__")
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        finally:
            GlobalHydra.instance().clear()
        return Said(*capsys.readouterr(), code)

    return run


def test_one_prompt_gets_its_answer_alone_when_nobody_watches(generate: Generate) -> None:
    assert generate("prompt=What is the opposite of hot?") == (f"{TEXT}\n", "", 0)


def test_json_is_one_object_per_prompt_and_nothing_else(generate: Generate) -> None:
    (row,) = generate(f"prompt={ODD}", "format=json", "seed=3").rows
    assert row["prompt"] == ODD and row["answer"] == TEXT
    assert len(row["ids"]) == 12 and row["tokens"] == 7 and row["steps"] == row["network_calls"] == 12
    assert row["corrections"] == 0 and row["seconds"] >= 0 and row["seed"] == 3 and row["batch"] == 1
    assert row["sampler"]["name"] == "Reveal" and row["sampler"]["pace"] == {"name": "Even"}
    assert row["sampler"]["proposal"]["temperature"] == 0.0


def test_a_text_file_asks_one_prompt_per_line(generate: Generate) -> None:
    Path("asked.txt").write_text("one?\n\n  two?  \r\nthree = {?}\n")
    assert generate("prompts=asked.txt").out == "".join(f"> {q}\n{TEXT}\n\n" for q in ("one?", "two?", "three = {?}"))
    rows = generate("prompts=asked.txt", "format=json", "batch_size=2").rows
    assert [row["prompt"] for row in rows] == ["one?", "two?", "three = {?}"]
    assert [row["batch"] for row in rows] == [2, 2, 1]


def test_a_jsonl_file_asks_prompts_or_whole_conversations(generate: Generate) -> None:
    talk = [
        {"role": "user", "content": "a?"},
        {"role": "assistant", "content": "b."},
        {"role": "user", "content": "c?"},
    ]
    answered = [*talk, {"role": "assistant", "content": "d."}]
    asked = [{"prompt": "line\none", "id": 7}, {"messages": talk}, {"messages": answered}]
    Path("asked.jsonl").write_text("\n".join(map(json.dumps, asked)) + "\n\n")
    rows = generate("prompts=asked.jsonl", "format=json").rows
    assert [row["prompt"] for row in rows] == ["line\none", "c?", "c?"]
    assert [row.get("messages") for row in rows] == [None, talk, talk]


def test_without_a_prompt_the_lines_of_a_pipe_are_asked(generate: Generate) -> None:
    assert generate(stdin="one?\n\ntwo?\n").out == f"{TEXT}\n{TEXT}\n"
    assert [row["prompt"] for row in generate("format=json", stdin="one?\ntwo?").rows] == ["one?", "two?"]


def test_an_empty_pipe_asks_nothing(generate: Generate) -> None:
    assert generate(stdin="") == ("", "", 0)


@pytest.mark.parametrize(
    ("choices", "sampler"),
    [
        ([], {"name": "Reveal", "steps": None, "order": {"name": "Surest"}, "undo": {"name": "Never"}}),
        (["sampler.steps=5"], {"name": "Reveal", "steps": 5, "pace": {"name": "Even"}}),
        (["sampler=ancestral", "sampler.steps=16"], {"name": "Ancestral", "steps": 16}),
        (
            ["sampler.proposal.temperature=0.5", "sampler=random"],
            {"name": "Reveal", "steps": None, "order": {"name": "Shuffled"}},
        ),
        (
            ["sampler=remdm_cap", "sampler.steps=5", "sampler.low.eta=0.5"],
            {"name": "Psi", "steps": 5, "low": {"name": "Cap", "eta": 0.5}},
        ),
    ],
    ids=str,
)
def test_the_models_own_sampler_is_taken_changed_or_replaced(
    generate: Generate, choices: list[str], sampler: dict[str, Any]
) -> None:
    (row,) = generate("prompt=hello", "format=json", *choices).rows
    assert row["sampler"].items() >= sampler.items()


def test_a_part_of_the_models_own_sampler_is_changed_alone(generate: Generate, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Psi(4, profile=Plateau(), middle=Cap(0.1))
    monkeypatch.setattr("dllm_lightning.loading.load", lambda path, device: parrot(sampler=own))
    other = "sampler.low={_target_: dllm_lightning.sampler.Rescale, eta: 0.3}"
    (row,) = generate("prompt=hello", "format=json", "sampler.middle.eta=0.2", "sampler.profile.level=0.7", other).rows
    assert row["sampler"]["middle"] == {"name": "Cap", "eta": 0.2} and row["sampler"]["profile"]["level"] == 0.7
    assert row["sampler"]["low"] == {"name": "Rescale", "eta": 0.3} and row["sampler"]["steps"] == 4
    told = generate("prompt=hello", "sampler.middle.eat=0.2")
    assert told.err == "There is no option 'sampler.middle.eat'. Did you mean sampler.middle.eta?\n"
    told = generate("prompt=hello", "sampler.steps.eta=2")
    assert told.err == "sampler.steps=4 is a value and has no options: give another value.\n"


def test_the_length_is_the_trained_one_or_what_is_asked_for(generate: Generate) -> None:
    assert len(generate("prompt=hello", "format=json").rows[0]["ids"]) == 12
    assert len(generate("prompt=hello", "format=json", "length=4").rows[0]["ids"]) == 4


def test_the_same_seed_gives_the_same_answers(generate: Generate) -> None:
    draws = ["prompt=hello", "format=json", "sampler=random", "sampler.proposal.temperature=3.0"]
    answers = [generate(*draws, f"seed={seed}").rows[0]["answer"] for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]


def test_nothing_is_left_behind(generate: Generate, tmp_path: Path) -> None:
    generate("prompt=hello")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["prompt="], "prompt='' cannot be answered: empty content."),
        (
            ["prompts=no.txt"],
            "There is no file prompts='no.txt': give a text file with one prompt per line, or a .jsonl file.",
        ),
        (["prompts=empty.txt"], "prompts=empty.txt asks nothing: it has no line with a prompt."),
        (["prompts=bad.jsonl"], "prompts=bad.jsonl line 2 is not JSON (Expecting value): nonsense"),
        (
            ["prompts=other.jsonl"],
            'prompts=other.jsonl line 1 has no "prompt", no "messages" and no "fill": {"question": "?"}',
        ),
        (["prompts=roles.jsonl"], "prompts=roles.jsonl line 1 cannot be answered: roles out of order."),
        (["prompts=latin.txt"], "prompts=latin.txt is not UTF-8 text (unexpected end of data at byte 3)."),
        (["prompt=a", "prompts=b"], "prompt='a' and prompts='b' both ask: give one of them."),
        (["prompt=a", "length=0"], "length=0 is no number of things: give a whole number, 1 or more."),
        (["prompt=a", "length=long"], "length=long is no number of things: give a whole number, 1 or more."),
        (["prompt=a", "seed=-1"], "seed=-1 is no seed: give a whole number, from 0 to 9223372036854775807."),
        (["prompt=a", "pause=-1"], "pause=-1 is no time: give seconds, 0 or more."),
        (["prompt=a", "format=xml"], "format=xml is unknown: choose one of auto, rich, plain, json."),
        (["prompt=a", "device=gpu"], "There is no device=gpu here: give auto or cpu, or cuda where there is a GPU."),
        (["prompt=a", "frmat=json"], "There is no option 'frmat'. Did you mean format?"),
        (["prompt=a", "sampler=confidnce"], "There is no sampler=confidnce. Did you mean confidence?"),
        (["prompt=a", "sampler.stpes=3"], "There is no option 'sampler.stpes'. Did you mean sampler.steps?"),
        (
            ["prompt=a", "sampler=random", "sampler.stpes=3"],
            "There is no option 'sampler.stpes'. Did you mean sampler.steps?",
        ),
        (["hello"], "'hello' is no override: write KEY=VALUE, as in sampler.steps=16."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_answered_is_told_in_one_sentence(
    generate: Generate, arguments: list[str], sentence: str
) -> None:
    Path("empty.txt").write_text("\n \n")
    Path("bad.jsonl").write_text('{"prompt": "fine"}\nnonsense\n')
    Path("other.jsonl").write_text('{"question": "?"}\n')
    Path("roles.jsonl").write_text('{"messages": [{"role": "assistant", "content": "I begin."}]}\n')
    Path("latin.txt").write_bytes(b"caf\xe9")
    assert generate(*arguments) == ("", f"{sentence}\n", 2)


def test_without_a_model_it_says_what_to_give(generate: Generate) -> None:
    told = generate("prompt=a", ckpt=None)
    assert told.code == 2 and told.err.startswith("Nobody to ask: give ckpt=PATH")


def test_a_checkpoint_may_be_called_anything(generate: Generate, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("dllm_lightning.loading.load", lambda path, device: asked.append(path) or parrot())
    generate("prompt=a", ckpt="runs/a b/epoch=3-step=200, {x}.ckpt")
    assert asked == ["runs/a b/epoch=3-step=200, {x}.ckpt"]


# texts with gaps

FILL = "The opposite of [[1]] is cold."


@pytest.fixture
def fill(generate: Generate, monkeypatch: pytest.MonkeyPatch) -> Generate:
    """The same, with a model that says TEXT in whatever row ends with it, and reads 40 tokens."""
    monkeypatch.setattr("dllm_lightning.loading.load", lambda path, device: parrot(8, longest=40))
    return generate


def test_a_text_by_itself_is_filled(fill: Generate) -> None:
    assert fill(f"fill={FILL}") == ("The opposite of hot is cold.\n", "", 0)
    assert fill("fill=The [[2]] hot [[1]] cold.").out == "The opposite of hot is cold.\n"
    (row,) = fill("fill=The [[2]] hot [[1]] cold.", "format=json").rows
    assert row["text"] == "The opposite of hot is cold." and row["filled"] == ["opposite of", "is"]
    assert row["fill"] == "The [[2]] hot [[1]] cold." and "prompt" not in row and "answer" not in row
    assert row["tokens"] == row["steps"] == len(row["ids"]) == 3


def test_a_fill_is_the_answer_to_its_prompt(fill: Generate) -> None:
    (row,) = fill("prompt=[[3]] {?}", f"fill={FILL}", "format=json").rows
    assert row["prompt"] == "[[3]] {?}" and row["text"] == "The opposite of hot is cold." and row["filled"] == ["hot"]


def test_rows_of_a_file_may_have_fills_of_their_own(fill: Generate) -> None:
    talk = [{"role": "user", "content": "c?"}, {"role": "assistant", "content": "left out"}]
    rows: list[dict[str, Any]] = [
        {"prompt": "one?", "fill": "The [[4]]cold."},
        {"fill": "[[1]] opposite [[2]] is [[1]]."},
        {"messages": talk, "fill": FILL},
        {"prompt": "[[2]]", "fill": None},
    ]
    Path("asked.jsonl").write_text("\n".join(map(json.dumps, rows)))
    told = fill("prompts=asked.jsonl", "format=json", "batch_size=3").rows
    assert [row.get("filled") for row in told] == [["opposite of hot is "], ["the", "of hot", "cold"], ["hot"], None]
    assert [row.get("prompt") for row in told] == ["one?", None, "c?", "[[2]]"]
    assert told[3]["answer"] == TEXT and [row["batch"] for row in told] == [3, 3, 3, 1]
    shown = fill("prompts=asked.jsonl").out
    assert shown.startswith(
        "> one?\nThe opposite of hot is cold.\n\n> [[1]] opposite [[2]] is [[1]].\nthe opposite of hot"
    )


def test_a_prompt_is_never_taken_for_a_text_with_gaps(fill: Generate) -> None:
    Path("asked.txt").write_text("[[0]] [[x]\n")
    assert fill("prompt=[[0]] [[x]").out == f"{TEXT}\n"
    assert fill("prompts=asked.txt").out == f"{TEXT}\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fill="], "fill='' cannot be filled: empty content."),
        (["fill=all is said"], "fill='all is said' cannot be filled: it has no gap, such as [[4]] for four tokens."),
        (["fill=a [[0]]"], "fill='a [[0]]' cannot be filled: [[0]] is a gap without a token."),
        (
            ["fill=a [[x]]"],
            "fill='a [[x]]' cannot be filled: [[x]] is no gap (four tokens are [[4]], the brackets themselves \\[[).",
        ),
        (["prompt=", "fill=a [[1]]"], "prompt='' cannot be answered: empty content."),
        (["prompt=a", "fill="], "fill='' cannot be filled: empty content."),
        (
            ["fill=a [[99]]"],
            "The text and its 99 tokens to fill in make 99 tokens, and this network reads 40 at most. "
            "Shorten one of them.",
        ),
        (
            ["prompt=a b c", "fill=a [[36]]"],
            "The conversation, the text and its 36 tokens to fill in make 44 tokens, "
            "and this network reads 40 at most. Shorten one of them.",
        ),
        (
            ["fill=a [[1]]", "prompts=asked.txt"],
            "fill='a [[1]]' and prompts='asked.txt' both ask: give one of them, or write the fills into a .jsonl file, "
            'as in {"prompt": "...", "fill": "..."}.',
        ),
        (["prompts=wrong.jsonl"], "prompts=wrong.jsonl line 2 cannot be filled: 4 is not text."),
        (
            ["prompts=prompt.jsonl"],
            'prompts=prompt.jsonl line 1 has no "prompt", no "messages" and no "fill": {"prompt": 4, "fill": "[[1]]"}',
        ),
        (
            ["prompts=gap.jsonl"],
            "prompts=gap.jsonl line 1 cannot be filled: it has no gap, such as [[4]] for four tokens.",
        ),
        (["fil=a"], "There is no option 'fil'. Did you mean fill?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_filled_is_told_in_one_sentence(
    fill: Generate,
    arguments: list[str],
    sentence: str,
) -> None:
    Path("asked.txt").write_text("one?\n")
    Path("wrong.jsonl").write_text('{"fill": "[[1]]"}\n{"fill": 4}\n')
    Path("prompt.jsonl").write_text('{"prompt": 4, "fill": "[[1]]"}\n')
    Path("gap.jsonl").write_text('{"prompt": "a", "fill": "b"}\n')
    assert fill(*arguments) == ("", f"{sentence}\n", 2)
