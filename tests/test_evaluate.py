"""python -m dllm_lightning.evaluate: numbers that hold, their errors, sweeps, and what cannot be measured."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from dllm_lightning.chosen import for_hydra
from dllm_lightning.evaluate import own_data
from tests.conf.configurations import Ran, Terminal
from tests.evaluation.judges import save_judge
from tests.parrot import parrot
from tests.publish.models import DUO, MODERN, save_foreign, train

Evaluate = Callable[..., Ran]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("run"), *MODERN)


@pytest.fixture(scope="module")
def duo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("duo"), *DUO)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_judge(tmp_path_factory.mktemp("judge"))


@pytest.fixture
def evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Evaluate:
    """Runs the entry point as the command line does, in an empty folder."""
    terminal = Terminal(tmp_path, monkeypatch, capsys)
    return lambda *arguments: terminal(*own_data(for_hydra(arguments)), entry="evaluate")


def metrics(ran: Ran) -> dict[str, float]:
    assert (ran.code, ran.err) == (0, "")
    return json.loads(ran.out)["metrics"]


def test_the_bound_is_the_one_that_validation_reports(evaluate: Evaluate, run: Path) -> None:
    reported = json.loads((run / "result.json").read_text())["metrics"]
    found = metrics(evaluate(f"ckpt={run}", "answers=false", "draws=64", "format=json"))
    timed = metrics(evaluate(f"ckpt={run}", "answers=false", "draws=64", "format=json", "estimator=time"))
    noise = 4 * (found["nelbo_noise"] ** 2 + timed["nelbo_noise"] ** 2) ** 0.5
    assert abs(found["nelbo"] - timed["nelbo"]) < noise
    assert abs(found["nelbo"] - reported["val/nelbo"]) < 4 * reported["val/nelbo_error"]
    assert found["nelbo_noise"] < min(found["nelbo_error"], timed["nelbo_noise"])
    assert found["ppl"] == pytest.approx(2.718281828 ** found["nelbo"])


def test_answers_are_asked_judged_and_counted(evaluate: Evaluate, run: Path, tmp_path: Path) -> None:
    ran = evaluate(f"ckpt={run}", "nelbo=false", "run=one", "format=json", "sampler.steps=3")
    found, folder = metrics(ran), tmp_path / "runs" / "evaluations" / "one"
    rows = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert len(rows) == 8 and {*rows[0]} == {"messages", "answer", "reference", "right", "kind"}
    assert found["exact_match"] == sum(row["right"] for row in rows) / 8 and found["exact_match_error"] > 0
    assert found["network_calls"] == 3 and found["seconds_per_answer"] > 0 and found["entropy"] >= 0
    assert {f"exact_match/{row['kind']}" for row in rows} <= {*found}
    assert json.loads((folder / "result.json").read_text()) == json.loads(ran.out)
    assert {file.name for file in folder.iterdir()} == {".hydra", "answers.jsonl", "result.json"}


@pytest.mark.slow
def test_a_compiled_network_answers_the_same(
    evaluate: Evaluate, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one graph, however many rows are left; the kernels, whose compilation takes minutes, stay what they were."""
    compiled: list[nn.Module] = []

    def compile(self: nn.Module, **options: Any) -> None:
        compiled.append(self)
        usual(self, backend="eager", fullgraph=True, **options)

    usual = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", compile)
    for name, on in (("plain", "false"), ("compiled", "true")):
        metrics(evaluate(f"ckpt={run}", "nelbo=false", "format=json", f"run={name}", f"compile={on}"))
    folder = tmp_path / "runs" / "evaluations"
    plain, other = ((folder / name / "answers.jsonl").read_text() for name in ("plain", "compiled"))
    assert plain == other and len(compiled) == 1


def test_the_same_seed_gives_the_same_numbers_in_batches_of_any_size(evaluate: Evaluate, run: Path) -> None:
    usual = [f"ckpt={run}", "format=json", "draws=2"]
    some, other = (metrics(evaluate(*usual, f"batch_size={size}")) for size in (3, 64))
    timed = {"seconds_per_answer", "seconds_per_answer_error", "tokens_per_second"}
    assert {*other} - timed == {*some} - timed
    assert {name: other[name] for name in {*other} - timed} == pytest.approx({n: some[n] for n in {*some} - timed})


def test_a_judge_is_quoted_with_what_it_must_be_read_with(evaluate: Evaluate, run: Path, judge: Path) -> None:
    told = evaluate(f"ckpt={run}", "nelbo=false", f"judge={judge}", "seed=3")
    assert told.code == 0 and told.err == ""
    (line,) = (line for line in told.out.splitlines() if "at entropy" in line)
    assert line.startswith("perplexity") and "nats, 6 network calls, float32, seed 3" in line
    found = json.loads(evaluate(f"ckpt={run}", "nelbo=false", f"judge={judge}", "format=json").out)
    assert found["metrics"]["gen_ppl"] > 1 and found["metrics"]["references/gen_ppl"] > 1
    how = found["how"]["generative perplexity"]
    assert {"entropy", "network_calls", "precision", "judge_precision", "seed", "judge", "tokens", "cut"} <= {*how}


def test_the_table_shows_every_number_with_its_error(evaluate: Evaluate, run: Path) -> None:
    told = evaluate(f"ckpt={run}", "draws=4")
    for name in ("nelbo", "perplexity", "exact match", "network calls", "seconds", "entropy", "distinct-1"):
        assert any(line.strip().startswith(name) for line in told.out.splitlines()), name
    assert " ± " in next(line for line in told.out.splitlines() if line.startswith("nelbo"))
    assert "nats per answer token, of which" in told.out and "95 %, Wilson" in told.out


def test_choices_alone_need_no_data(evaluate: Evaluate, run: Path, tmp_path: Path) -> None:
    row = {"prompt": "What is 3 + 4?", "choices": ["7", "8", "9"], "answer": "7"}
    (tmp_path / "asked.jsonl").write_text(json.dumps(row) + "\n")
    arguments = "nelbo=false", "answers=false", "choices=asked.jsonl", "format=json"
    found = metrics(evaluate(f"ckpt={run}", *arguments))
    assert found["choice_accuracy"] in (0, 1) and found["choice_chance"] == pytest.approx(1 / 3)


def test_a_file_is_read_whole_and_a_folder_by_its_split(evaluate: Evaluate, run: Path, tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Tell me two fruits."}, {"role": "assistant", "content": "apple and plum"}]
    (tmp_path / "sets").mkdir()
    for name, rows in {"mine": 5, "sets/train": 4, "sets/test": 3}.items():
        (tmp_path / f"{name}.jsonl").write_text((json.dumps({"messages": chat}) + "\n") * rows)
    cache = f"data.cache_dir={tmp_path / 'cache'}"
    for path, split, count in (("mine.jsonl", "validation", 5), ("mine.jsonl", "test", 5), ("sets", "test", 3)):
        ran = evaluate(f"ckpt={run}", f"data.path={path}", cache, f"split={split}", "format=json", "draws=2")
        assert ran.code == 0, ran.err
        how = json.loads(ran.out)["how"]
        assert how["likelihood"]["documents"] == how["answers"]["questions"] == count
        assert "exact_match" not in json.loads(ran.out)["metrics"]  # nobody can judge
    told = evaluate(f"ckpt={run}", "data.path=sets", cache, "split=validation")
    assert (told.code, told.err) == (2, "The data have no validation split, only test, train: give another split.\n")


def test_other_data_are_read_with_the_models_own_tokenizer(evaluate: Evaluate, run: Path) -> None:
    found = evaluate(f"ckpt={run}", "data=toy", "data.tasks=[fact]", "data.validation_size=4", "format=json", "draws=2")
    assert json.loads(found.out)["how"]["answers"]["questions"] == 4
    changed = evaluate(f"ckpt={run}", "data.tasks=[copy]", "data.test_size=6", "split=test", "format=json", "draws=2")
    assert json.loads(changed.out)["how"]["likelihood"]["documents"] == 6


def test_random_tokens_are_measured_over_times(evaluate: Evaluate, duo: Path) -> None:
    found = json.loads(evaluate(f"ckpt={duo}", "draws=4", "format=json").out)
    assert found["how"]["likelihood"]["estimator"] == "time" and found["metrics"]["nelbo"] > 0
    told = evaluate(f"ckpt={duo}", "estimator=count")
    assert told.code == 2 and told.err.startswith("estimator=count hides exact numbers of tokens, and UniformDiffusion")
    told = evaluate(f"ckpt={duo}", "sampler=confidence")
    assert told.code == 2 and "MaskedDiffusion" in told.err and told.err.count("\n") == 1


def test_half_precision_and_a_cache_are_conditions_like_others(evaluate: Evaluate, run: Path) -> None:
    half = json.loads(evaluate(f"ckpt={run}", "precision=bfloat16", "draws=16", "format=json").out)
    full = metrics(evaluate(f"ckpt={run}", "draws=16", "cache=dual", "format=json"))
    assert half["how"]["likelihood"]["precision"] == "bfloat16"
    assert half["metrics"]["nelbo"] == pytest.approx(full["nelbo"], rel=0.05)
    assert half["metrics"]["nelbo"] != full["nelbo"]


def test_a_sweep_ends_in_a_table_a_file_and_the_front(evaluate: Evaluate, run: Path, tmp_path: Path) -> None:
    command = ["-m", f"ckpt={run}", "sampler=confidence,ancestral", "sampler.steps=2,4", "nelbo=false", "run=both"]
    ran = evaluate(*command)
    assert ran.code == 0, ran.err
    sweep = tmp_path / "runs" / "sweeps" / "both"
    with (sweep / "sweep.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == 4 and {row["status"] for row in rows} == {"done"}
    assert {(row["sampler"], row["sampler.steps"]) for row in rows} == {
        (name, steps) for name in ("confidence", "ancestral") for steps in ("2", "4")
    }
    assert all(float(row["network_calls"]) <= float(row["sampler.steps"]) for row in rows)
    assert (sweep / "sweep.png").stat().st_size > 10_000 and "exact_match" in ran.out
    assert all((sweep / row["job"] / "answers.jsonl").is_file() for row in rows)
    assert evaluate(*command).out.count("Done already") == 4
    os.utime(run / "checkpoints" / "last.ckpt")  # as if it had been trained further
    assert "Done already" not in evaluate(*command).out


def test_the_models_own_sampler_is_swept_too(evaluate: Evaluate, run: Path, tmp_path: Path) -> None:
    assert evaluate("-m", f"ckpt={run}", "sampler.steps=1,2", "nelbo=false", "run=own").code == 0
    assert {job.name for job in (tmp_path / "runs" / "sweeps" / "own").iterdir() if job.is_dir()} == {
        "sampler.steps=1",
        "sampler.steps=2",
    }


WRONG = [
    ([], "There is nothing at ckpt='no': give a checkpoint, the folder of a run, or a Hugging Face folder."),
    (["split=dev"], "split=dev is unknown: choose one of train, validation, test."),
    (["estimator=best"], "estimator=best is unknown: choose one of auto, count, time."),
    (["precision=int8"], "precision=int8 is unknown: choose one of float32, bfloat16."),
    (["format=xml"], "format=xml is unknown: choose one of auto, rich, json."),
    (["draws=-1"], "draws=-1 is no number of things: give a whole number, 1 or more."),
    (["draws=7"], "draws=7 is odd, and draws come in pairs: give an even number, or 1."),
    (["draws=many"], "draws=many is no number of things: give a whole number, 1 or more."),
    (["limit=0"], "limit=0 is no number of things: give a whole number, 1 or more."),
    (["batch_size=null"], "batch_size=None is no number of things: give a whole number, 1 or more."),
    (["seed=-1"], "seed=-1 is no seed: give a whole number, from 0 to 9223372036854775807."),
    (["nelbo=perhaps"], "nelbo=perhaps is neither true nor false."),
    (["nelbo=false", "answers=false"], "Nothing to measure: leave nelbo=true or answers=true, or give choices=FILE or"),
    (["answers=false", "judge=x"], "judge has nothing to judge without answers: leave answers=false out."),
    (["data=tou"], "There is no data=tou. Did you mean toy?"),
    (["nebo=true"], "There is no option 'nebo'. Did you mean nelbo?"),
    (["device=gpu"], "There is no device=gpu here: give auto or cpu, or cuda where there is a GPU."),
    (["run=null"], "run=None is no name: give one, or leave run out."),
    (["draws=2,4"], "draws=2,4 names several values: add --multirun to try each"),
]
OF_A_RUN = [
    (["sampler.stpes=2"], "There is no option 'sampler.stpes'. Did you mean sampler.steps?"),
    (["sampler.steps=0"], "sampler.steps=0"),
    (
        ["sampler=ancestral", "sampler.steps=1000000"],
        "sampler.steps=1000000 asks the network that often for one answer",
    ),
    (["data.tasks=[cooking]"], "tasks=['cooking'] must name at least one of"),
    (["data.pth=x"], "There is no option 'data.pth'."),
    (["data.validation_size=none"], "data.validation_size='none' is of the wrong kind: give a whole number."),
    (["data.path=no.jsonl"], "There is no file or folder 'no.jsonl'."),
    (["data.path=empty.jsonl"], "There is no usable"),
    (["data.path=asks.jsonl"], "There is no usable"),
    (["judge=no"], "There is no folder judge='no': give one with a causal language model and its tokenizer."),
    (["choices=no.jsonl"], "There is no file choices='no.jsonl': give a .jsonl file with prompt, choices and answer."),
    (["length=20000"], "The validation split has no question that leaves length=20000 of"),
    (["cache=prefix", "cache.refresh_every=0"], "refresh_every"),
    (["cache=dual", "compile=true"], "compile=true and a cache do not go together: leave one of them out."),
]


def cases(of: list[tuple[list[str], str]]) -> Any:
    return pytest.mark.parametrize(("arguments", "said"), of, ids=lambda v: " ".join(v) if isinstance(v, list) else "")


@cases(WRONG)
def test_what_cannot_be_meant_is_told_at_once(evaluate: Evaluate, arguments: list[str], said: str) -> None:
    check(evaluate("ckpt=no", *arguments), said)
    assert not [*Path.cwd().iterdir()]


@cases(OF_A_RUN)
def test_what_cannot_be_measured_is_told_and_leaves_nothing(
    evaluate: Evaluate, run: Path, arguments: list[str], said: str
) -> None:
    Path("empty.jsonl").write_text("")
    Path("asks.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": "a?"}]}) + "\n")
    check(evaluate(f"ckpt={run}", *arguments), said)
    assert {file.name for file in Path.cwd().iterdir()} <= {"empty.jsonl", "asks.jsonl"}


def test_where_the_harness_is_not_installed_it_says_how_to_get_it(
    evaluate: Evaluate, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for module in [name for name in sys.modules if name.startswith("dllm_lightning.harness")]:
        monkeypatch.delitem(sys.modules, module)
    check(
        evaluate(f"ckpt={run}", "tasks=[arc_easy]"),
        "lm-evaluation-harness is not installed: pip install 'dllm-lightning[eval]'.",
    )


def check(told: Ran, said: str) -> None:
    assert told.code == 2 and told.out == ""
    assert said in told.err and told.err.count("\n") == 1, told.err


def test_without_a_model_it_says_what_to_give(evaluate: Evaluate) -> None:
    check(evaluate(), "Nothing to evaluate: give ckpt=PATH, a checkpoint, a run's folder, or a Hugging Face folder.")


def test_a_folder_of_others_does_not_say_what_it_was_trained_on(evaluate: Evaluate, tmp_path: Path) -> None:
    folder = save_foreign(tmp_path / "foreign")
    check(
        evaluate(f"ckpt={folder}"), "This model does not say what it was trained on: give data.path=FILE, or data=toy."
    )
    found = evaluate(f"ckpt={folder}", "data=toy", "data.validation_size=4", "length=6", "draws=2", "format=json")
    assert metrics(found)["nelbo"] > 0


def test_a_mistake_that_shows_late_leaves_nothing_either(
    evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch, judge: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr("dllm_lightning.measures.load", lambda path, device: parrot(text=""))
    told = evaluate("ckpt=x", "data=toy", "draws=2", "limit=2", f"judge={judge}")
    check(told, "Every answer is empty, so there is nothing to judge: leave judge out.")
    assert not [*tmp_path.iterdir()]
