"""What a user gets wrong is told in one sentence that names it and the way out: at once, and leaving nothing behind.

Every case runs the real entry point. Unless it is about the network itself, it has to be told before one is built.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from tests.conf.configurations import SPECIAL, TINY, TINY_TOY, Terminal, save_chat, save_tokenizer

ASKED = {"role": "user", "content": "what is a fruit"}


class Case(NamedTuple):
    """What is typed (with {here} for the folder of files below), and what the sentence has to say."""

    typed: str
    said: tuple[str, ...]
    late: bool = False  # about the network, so told while it is made

    def __str__(self) -> str:
        return self.typed.replace("{here}/", "").replace("/", ":")


def case(typed: str, *said: str, late: bool = False) -> Case:
    return Case(typed, said, late)


ON_TOY = (
    # keys and options
    case("optimizer.lrr=1", "'optimizer.lrr'", "Did you mean optimizer.lr?"),
    case("samplr.steps=3", "'samplr.steps'", "sampler.steps"),
    case("sampler=confidnce", "sampler=confidnce", "Did you mean confidence?"),
    case("experiment=mdm_tuli", "experiment=mdm_tuli", "Did you mean mdm_tulu?"),
    case("noise=xyz", "noise=xyz", "Choose one of cosine, geometric, loglinear, polynomial."),
    case("+optimizer.momentum=1", "'optimizer.momentum'", "optimizer has betas, decay, eps, lr"),
    case("logger=null", "logger=null", "~logger"),
    case("noise.max_ratio=0.5,0.8", "several values", "--multirun"),
    # values
    case("trainer.max_steps=abc", "trainer.max_steps='abc'", "a whole number"),
    case("optimizer.lr=fast", "optimizer.lr='fast'", "a number"),
    case("optimizer.lr=-1", "optimizer.lr=-1", "positive"),
    case("optimizer.betas=[2,3]", "optimizer.betas=[2, 3]"),
    case("optimizer.decay=slow", "optimizer.decay='slow'", "cosine"),
    case("noise.max_ratio=1.5", "noise.max_ratio=1.5", "Choose 0 <= min_ratio <= max_ratio <= 1"),
    case("noise.min_ratio=0.9 noise.max_ratio=0.1", "noise.min_ratio=0.9", "noise.max_ratio=0.1", "Choose"),
    case("noise=geometric noise.sigma_min=20.0", "noise.sigma_min=20.0", "choose 0 < sigma_min < sigma_max"),
    case("process.replace.mask=0.7", "process.replace", "mask=0.7", "sum to 1"),
    case("loss.per=word", "loss.per='word'", "token, sequence, batch"),
    case("sampler.steps=-3", "sampler.steps=-3", "1 or more"),
    case("sampler.temperature=-1.0", "sampler.temperature=-1.0", "0 for the most probable"),
    case("trainer.max_steps=0", "trainer.max_steps=0", "give 1 or more, or -1"),
    case("trainer.max_steps=-7", "trainer.max_steps=-7", "give 1 or more, or -1"),
    case("trainer.max_epochs=0", "trainer.max_epochs=0", "give 1 or more, or -1"),
    case("trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches=0", "1 or more"),
    case("trainer.val_check_interval=0", "trainer.val_check_interval=0", "1 or more"),
    case("trainer.precision=float", "trainer.precision='float'", "bf16-mixed"),
    case("trainer.accelerator=abacus", "abacus", "cpu"),
    case("data.batch_size=0", "data.batch_size=0", "at least 1"),
    case("data.batch_size=2.5", "data.batch_size=2.5", "a whole number"),
    case("data.train_size=0", "data.train_size=0", "at least 1"),
    case("data.tasks=[cooking]", "cooking", "copy"),
    case("data.overlong=squeeze", "data.overlong='squeeze'", "cut, whole, drop"),
    case("data.max_length=0", "max_length=0", "at least 1"),
    case("callbacks.samples.lengths=[0]", "callbacks.samples", "lengths=[0]", "at least 1"),
    case("callbacks=ema callbacks.ema.decay=2", "callbacks.ema", "[0,1]"),
    case("seed=-1", "seed=-1", "from 0"),
    case("seed=lucky", "seed='lucky'", "whole number"),
    case("model.validation_draws=0", "model.validation_draws=0", "at least 1", late=True),
    case("backbone.chunk=0", "backbone.chunk=0", "at least 1", late=True),
    case("backbone.attention=none", "backbone.attention='none'", "sdpa", late=True),
    # parts that do not go together
    case("loss=elbo process/hiding=floor_count", "Elbo", "rounded-down count", "loss=masked_ce"),
    case("loss=elbo process/replace=bert", "Elbo", "80% masks", "loss=masked_ce"),
    case("loss=elbo noise.max_ratio=0.9", "Elbo", "from 0 to 0.9", "loss=weighted_ce"),
    case("loss=weighted_ce noise.min_ratio=0.15 noise.max_ratio=0.15", "fixed", "loss.weight=level"),
    case("sampler.steps=3 sampler.tokens_per_step=2", "sampler.steps=3", "sampler.tokens_per_step=2", "null"),
    case("backbone=masked_lm data.packing=true", "MaskedLM", "data.packing=false"),
    case("data/template=native", "no chat template", "data/template=turns"),
    # checkpoints
    case("threads=0", "threads=0", "give a whole number, 1 or more"),
    case("resume={here}/nothing.ckpt", "nothing.ckpt", "give a file, auto, or null"),
    case("resume={here}/garbage.ckpt", "garbage.ckpt", "no readable checkpoint"),
    # where it should go
    case("hydra.run.dir={here}/file.txt/run", "file.txt"),
)
WRONG: dict[str, tuple[Any, str]] = {
    "number": (7, "not a mapping"),
    "none": ({"messages": None}, "no messages"),
    "text": ({"messages": "hello"}, "messages is text, not a list"),
    "word": ({"messages": ["hello"]}, "a message is text, not a mapping"),
    "nameless": ({"messages": [{"content": "hello"}]}, "a message without a role"),
    "tool": ({"messages": [ASKED, {"role": "tool", "content": "a"}]}, "unknown role 'tool'"),
    "order": ({"messages": [{"role": "assistant", "content": "a"}, ASKED]}, "roles out of order"),
    "null": ({"messages": [ASKED, {"role": "assistant", "content": None}]}, "content is null, not text"),
    "digit": ({"messages": [ASKED, {"role": "assistant", "content": 3}]}, "content is a number, not text"),
    "list": ({"messages": [ASKED, {"role": "assistant", "content": ["a"]}]}, "content is a list, not text"),
    "half": ({"messages": [ASKED, {"role": "assistant", "content": "\ud83d"}]}, "half a surrogate pair"),
    "blank": ({"messages": [ASKED, {"role": "assistant", "content": " "}]}, "empty content"),
    "unasked": ({"messages": [ASKED]}, "no answer"),
    "latin": (b'{"messages": "\xe9"}', "not UTF-8"),
    "cut": (b'{"messages": [', "not JSON"),
}
"""What is in every row of a file of this name, and what is said of it."""
ON_FILES = (
    case("data.path={here}/missing.jsonl", "missing.jsonl", "no file or folder"),
    case("data.path={here}/empty", "/empty", "holds no data file", ".jsonl"),
    case("data.path={here}/file.txt", "file.txt", ".jsonl"),
    case("data.path={here}/texts.jsonl", "texts.jsonl", "'messages'", "only 'text'", '"role": "user"'),
    case("data.path={here}/blank.jsonl", "no usable train row", "5 rows: empty content"),
    case("data.path={here}/unanswered.jsonl", "no usable train row", "5 rows: no answer"),
    case("data.path={here}/nothing.jsonl", "no usable train row", "no rows at all"),
    case("data.path={here}/garbage.jsonl", "no usable train row", "4 rows: not JSON"),
    *(
        case(f"data.path={{here}}/wrong/{name}.jsonl{then}", *told, said)
        for name, (_, said) in WRONG.items()
        for then, told in (
            ("", ("no usable train row", "5 rows: ")),
            (" data.on_bad_row=raise", (f"{name}.jsonl, line 1,", "It begins", "data.on_bad_row=skip")),
        )
    ),
    case("data.path={here}/late.jsonl data.on_bad_row=raise", "late.jsonl, line 49,", "not JSON", "'garbage'"),
    case("data.path={here}/far.jsonl data.on_bad_row=raise", "far.jsonl, line 145,", "not JSON", late=True),
    case(
        "data.path={here}/far.jsonl data.on_bad_row=raise data.streaming=true data.validation_size=140",
        *("far.jsonl, line 145,", "not JSON"),
        late=True,
    ),
    case("data.path={here}/mixed data.on_bad_row=raise", "mixed/train-2.jsonl, line 49,", "not JSON"),
    case("data.on_bad_row=ignore", "data.on_bad_row='ignore'", "skip, raise"),
    case("data.path={here}/object.json", "object.json", "one JSON object ('data', 'info')", "one row on each line"),
    case("data.path={here}/array.json", "array.json", "begins like a JSON array"),
    case("data.path={here}/typed.parquet", "typed.parquet", "'messages' of type string", "a list of role and content"),
    case("data.path={here}/short.parquet", "short.parquet", "not all of one"),
    case("data.path={here}/flipped.jsonl.gz", "flipped.jsonl.gz", "Is it complete?"),
    case("data.path={here}/broken.jsonl.gz", "broken.jsonl.gz", "Is it complete?"),
    case("data.path={here}/garbage.parquet", "garbage.parquet", "not a Parquet file"),
    case("data.path=nobody/nothing", "'nobody/nothing'", "a local file or folder"),
    case("data.path={path:{here}/chat.jsonl,wieght:2}", "wieght", "weight"),
    case("data.tokenizer=nobody/nothing", "data.tokenizer='nobody/nothing'", "give a folder"),
    case("data.tokenizer={here}/missing", "missing", "data.tokenizer"),
    case("data.tokenizer={here}/maskless", "no mask token", "add_special_tokens"),
    case("data.validation_size=48", "data.validation_size=48", "leaves none", late=True),
    case("data.validation_size=0", "data.validation_size=0", "above 0"),
    case("data.validation_size=-3", "data.validation_size=-3", "above 0"),
    case("data.num_workers=-1", "data.num_workers=-1", "0 (none) or more"),
    case("data.num_proc=0", "data.num_proc=0", "give 1 or more"),
    case("data.streaming=true", "data.validation_size=0.05", "data.validation_size=1000"),
    case("data.streaming=true data.path={path:{here}/chat.jsonl,rows:3}", "rows=3", "a stream cannot do that"),
    case("data.streaming=true data.validation_size=48", "chat has too few rows to stream to 1 process", late=True),
    case("data.template.end=xyz", "'xyz'"),
    case("backbone.config=null", "backbone.pretrained=None", "exactly one", late=True),
    case("backbone.config=null backbone.pretrained=nobody/nothing", "'nobody/nothing'", "local folder", late=True),
)
ON_A_MODEL = (
    case("prompt=hello", "ckpt=PATH"),
    case("ckpt={here}/missing prompt=hello", "missing", "Hugging Face folder"),
    case("ckpt={here}/garbage.ckpt prompt=hello", "garbage.ckpt", "no readable checkpoint"),
    case("ckpt={here}/empty prompt=hello", "/empty", "holds no checkpoint"),
    case("ckpt={here}/empty prompts={here}/missing.txt", "missing.txt", "one prompt per line"),
    case("ckpt={here}/empty prompts={here}/nothing.jsonl", "nothing.jsonl", "asks nothing"),
    case("ckpt={here}/empty prompt=hello length=-1", "length=-1", "1 or more"),
    case("ckpt={here}/empty prompt=hello lenght=5", "'lenght'", "Did you mean length?"),
)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one good file, one good tokenizer, and many bad ones."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "empty").mkdir()
    for name in ("nothing.jsonl", "file.txt"):
        (folder / name).touch()
    for name in ("garbage.jsonl", "garbage.parquet", "garbage.ckpt"):
        (folder / name).write_text("garbage\n" * 4)
    rows(folder / "texts.jsonl", {"text": "words"})
    rows(folder / "blank.jsonl", {"messages": [ASKED, {"role": "assistant", "content": " "}]})
    rows(folder / "unanswered.jsonl", {"messages": [ASKED]})
    whole = gzip.compress(save_chat(folder / "chat.jsonl").read_bytes())
    (folder / "broken.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    wrong_files(folder, whole)
    save_tokenizer(folder / "tokenizer")
    save_tokenizer(folder / "maskless", {name: word for name, word in SPECIAL.items() if name != "mask_token"})
    return folder


def wrong_files(folder: Path, zipped: bytes) -> None:
    """Rows and files that are wrong each in its own way, some of them after many good rows."""
    from pyarrow import Table, parquet

    for name in ("wrong", "mixed"):
        (folder / name).mkdir()
    for name, (row, _) in WRONG.items():
        line = row if isinstance(row, bytes) else json.dumps(row).encode()
        (folder / "wrong" / f"{name}.jsonl").write_bytes((line + b"\n") * 5)
    good = (folder / "chat.jsonl").read_text()
    (folder / "late.jsonl").write_text(f"{good}garbage\n{good}")
    (folder / "far.jsonl").write_text(f"{good * 3}garbage\n{good}")
    (folder / "mixed" / "train-1.jsonl").write_text(good)
    (folder / "mixed" / "train-2.jsonl").write_text(f"{good}garbage\n")
    (folder / "object.json").write_text('{\n"data": [],\n"info": 1\n}\n')
    (folder / "array.json").write_text('[{"messages": []}\n')
    (folder / "flipped.jsonl.gz").write_bytes(zipped[:100] + b"\xff" * 50 + zipped[150:])
    parquet.write_table(Table.from_pylist([{"messages": "hello"}]), folder / "typed.parquet")
    (folder / "short.parquet").write_bytes((folder / "typed.parquet").read_bytes()[:-9])


def rows(file: Path, row: dict[str, Any]) -> None:
    file.write_text(f"{json.dumps(row)}\n" * 5)


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(tmp_path, monkeypatch, capsys)


def refused(terminal: Terminal, base: Iterable[str], wrong: Case, here: Path, entry: str = "train") -> None:
    """The law: exit code 2, one sentence with everything in it, and a folder as empty as before."""
    if not wrong.late:
        terminal.monkeypatch.setattr("dllm_lightning.assemble.sized", too_late)
    typed = [each.replace("{here}", str(here)) for each in wrong.typed.split()]
    retyped = tuple(f"{each.partition('=')[0]}{then}" for each in typed for then in ("=", "."))
    ran = terminal(*(each for each in base if not each.startswith(retyped)), *typed, entry=entry)
    assert ran.code == 2, ran.out
    (sentence,) = ran.err.splitlines()
    for part in wrong.said:
        assert part in sentence
    assert len(sentence) < 500 and sentence[-1] in ".?)" and "Traceback" not in sentence
    assert not any(terminal.folder.iterdir()), [*terminal.folder.rglob("*")]


def too_late(*_: Any) -> None:
    raise AssertionError("a network is being built, and the mistake was not told")


@pytest.mark.parametrize("wrong", ON_TOY, ids=str)
def test_a_wrong_option_is_one_sentence(wrong: Case, terminal: Terminal, here: Path) -> None:
    refused(terminal, (*TINY, *TINY_TOY), wrong, here)


@pytest.mark.parametrize("wrong", ON_FILES, ids=str)
def test_a_wrong_source_is_one_sentence(wrong: Case, terminal: Terminal, here: Path) -> None:
    files = (f"data.path={here}/chat.jsonl", f"data.tokenizer={here}/tokenizer", f"data.cache_dir={here}/cache")
    refused(terminal, (*TINY, *files), wrong, here)


@pytest.mark.parametrize("wrong", ON_A_MODEL, ids=str)
def test_a_wrong_question_is_one_sentence(wrong: Case, terminal: Terminal, here: Path) -> None:
    refused(terminal, (), wrong, here, entry="generate")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("typed", ["trainer.accelerator=gpu", "trainer=gpu", "trainer=ddp", "trainer=fsdp"])
def test_a_gpu_that_is_not_there_is_one_sentence(typed: str, terminal: Terminal, here: Path) -> None:
    refused(terminal, (*TINY, *TINY_TOY), case(typed, "needs a GPU", "trainer=cpu"), here)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_one_sentence(terminal: Terminal, here: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    ran = terminal(*TINY, *TINY_TOY, f"hydra.run.dir={locked}/run")
    assert ran.code == 2 and ran.err == f"Permission denied: '{locked}/run'.\n"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("optimizer.lrr=1",), "There is no option 'optimizer.lrr'. Did you mean optimizer.lr?"),
        (("data=toy", "loss=elbo", "noise.max_ratio=0.9"), "Elbo cannot be used: "),
    ],
    ids=["a misspelt key", "parts that do not go together"],
)
def test_in_a_real_terminal_too(typed: tuple[str, ...], said: str, tmp_path: Path) -> None:
    """The libraries that are loaded on the way say nothing beside the sentence."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    command = [sys.executable, "-m", "dllm_lightning.train", *typed]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(said) and ran.stderr.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_a_mistake_leaves_what_was_there_before(terminal: Terminal) -> None:
    """A folder that holds a run is not the folder of a run that did not start."""
    kept = terminal.folder / "runs" / "mine" / "notes.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("results")
    (terminal.folder / "runs" / "empty").mkdir()
    for name in ("mine", "empty", "new"):
        assert terminal(*TINY, *TINY_TOY, "noise.max_ratio=2", f"run={name}").code == 2
    assert kept.read_text() == "results" and (terminal.folder / "runs" / "empty").is_dir()
    assert not (terminal.folder / "runs" / "new").exists()
