"""Entry points start from a command line: verbatim texts arrive as typed, and mistakes are told in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

import dllm_lightning.launch as launching
from dllm_lightning.launch import conf_dir, launch, quoted, split
from dllm_lightning.mistakes import no_such_key

MAIN = """
defaults:
  - fruit: apple
  - basket: null
  - _self_
size: 3
data: {max_length: 5, path: null}
needed: ???
hydra: {run: {dir: .}, output_subdir: null}
"""
FRUITS = {
    "apple": "{_target_: collections.Counter, weight: 1, colour: green}",
    "pear": "{_target_: fractions.Fraction, numerator: x}",
}

Start = Callable[..., int]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Launches a main with these arguments and gives the exit code; the configuration is a small one."""
    for name, text in {"conf/main.yaml": MAIN, **{f"conf/fruit/{k}.yaml": v for k, v in FRUITS.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "conf" / "basket").mkdir()
    monkeypatch.setattr(launching, "conf_dir", lambda: tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.delenv("DLLM_DEBUG", raising=False)

    def begin(main: Callable[..., Any], *arguments: str, verbatim: tuple[str, ...] = ()) -> int:
        monkeypatch.setattr(sys, "argv", ["main.py", *arguments])
        try:
            launch(main, "main", verbatim)
        except SystemExit as stopped:
            return int(stopped.code or 0)
        return 0

    yield begin
    GlobalHydra.instance().clear()


def nothing(cfg: DictConfig) -> None:
    pass


def test_main_gets_the_composed_configuration(start: Start) -> None:
    seen: list[Any] = []
    assert start(lambda cfg: seen.append(OmegaConf.to_container(cfg)), "size=7", "fruit.weight=2") == 0
    assert seen[0]["size"] == 7 and seen[0]["fruit"]["weight"] == 2


@pytest.mark.parametrize(
    "text",
    [
        "What is 3 = ? {a}, [b]",
        "${size} $HOME \\${x} \\\\",
        "it's \"quoted\", 'twice'",
        "line one\nline two\ttab",
        "???",
        "null",
        "",
        "  spaces  ",
        "a,b,c",
        "~(x) ; # & é \N{SPARKLES} 日本",
        "prompt=again",
        "--multirun",
    ],
)
def test_a_verbatim_value_arrives_character_for_character(start: Start, text: str) -> None:
    seen: list[str] = []
    assert start(lambda cfg, prompt: seen.append(prompt), f"prompt={text}", "size=2", verbatim=("prompt",)) == 0
    assert seen == [text]


def test_only_verbatim_keys_that_are_given_are_passed_and_the_last_one_counts() -> None:
    assert split(["a=1", "b=x=y", "c", "b=2"], ("b", "d")) == (["a=1", "c"], {"b": "2"})


@pytest.mark.parametrize(
    ("argument", "meant"),
    [
        ("data.path=runs/epoch=3-step=200.ckpt", "data.path='runs/epoch=3-step=200.ckpt'"),
        ("size=3", "size=3"),
        ("data={max_length: 3}", "data={max_length: 3}"),
        ("data.path='a=b'", "data.path='a=b'"),
        ("--multirun", "--multirun"),
    ],
)
def test_a_second_equals_sign_is_part_of_the_value(argument: str, meant: str) -> None:
    assert quoted(argument) == meant


def test_a_path_with_equals_signs_reaches_the_configuration(start: Start) -> None:
    seen: list[str] = []
    assert start(lambda cfg: seen.append(cfg.data.path), "data.path=runs/epoch=3-step=200.ckpt") == 0
    assert seen == ["runs/epoch=3-step=200.ckpt"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["sise=4"], "There is no option 'sise'. Did you mean size?"),
        (["fruit.wieght=4"], "There is no option 'fruit.wieght'. Did you mean fruit.weight?"),
        (["fruit.taste=4"], "There is no option 'fruit.taste'. fruit has colour, weight."),
        (["max_length=4"], "There is no option 'max_length'. Did you mean data.max_length?"),
        (["friut=pear"], "There is no option 'friut'. Did you mean fruit?"),
        (["zzz=1"], "There is no option 'zzz'. --help lists the options."),
        (["fruit=peer"], "There is no fruit=peer. Did you mean pear?"),
        (["fruit=plum"], "There is no fruit=plum. Choose one of apple, pear."),
        (["hello"], "'hello' is no override: write KEY=VALUE, as in sampler.steps=16."),
        (["data={a"], "The value of data cannot be read: '{a'. Put it in quotes of its own: data='\"...\"'."),
        (["size=1,2"], "size=1,2 names several values: add --multirun to try each, or write size=\"'1,2'\" for one."),
        (["sise=4", "friut=pear"], "There is no option 'sise'. Did you mean size?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_on_the_command_line_is_one_sentence(
    start: Start, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert start(nothing, *arguments) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err == f"{sentence}\n"


def refuse(cfg: DictConfig) -> None:
    """As a part of this package would: the law is about where an error is raised."""
    from dllm_lightning.sampler import Reveal

    Reveal(steps=0)


def test_a_refusal_of_ours_is_one_sentence(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(refuse) == 2
    assert capsys.readouterr().err.startswith("sampler.steps=0 never gets to the end of a text")


def test_debugging_shows_the_traceback(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLLM_DEBUG", "1")
    with pytest.raises(ValueError, match="never gets to the end"):
        start(refuse)


def test_a_value_that_is_missing_is_named(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(lambda cfg: cfg.needed) == 2
    assert capsys.readouterr().err == "needed has no value: give needed=VALUE.\n"


def test_a_file_that_is_missing_is_named(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(lambda cfg: Path("not/there").read_text()) == 2
    assert capsys.readouterr().err == "No such file or directory: 'not/there'.\n"


def test_an_unknown_option_of_a_part_is_named_with_the_part(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(lambda cfg: instantiate(cfg.fruit), "fruit=pear", "+fruit.ripe=1") == 2
    assert capsys.readouterr().err == "There is no option 'fruit.ripe': leave it out.\n"


@pytest.mark.parametrize("error", [ZeroDivisionError("ours"), ValueError("from elsewhere"), KeyError("k")], ids=repr)
def test_what_nobody_foresaw_keeps_its_traceback(start: Start, error: Exception) -> None:
    def fail(cfg: DictConfig) -> None:
        raise error

    with pytest.raises(type(error)):
        start(fail)


def test_an_interrupt_leaves_without_a_word(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(cfg: DictConfig) -> None:
        raise KeyboardInterrupt

    assert start(interrupt) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_in_a_sweep_the_other_jobs_run_before_a_mistake_is_told(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = []

    def main(cfg: DictConfig) -> None:
        if cfg.size == 1:
            refuse(cfg)
        ran.append(cfg.size)

    assert start(main, "--multirun", "size=1,2,3", "hydra.sweep.dir=sweep") == 2
    assert ran == [2, 3] and "sampler.steps=0 never gets to the end" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "keys", "found"),
    [
        ("data.maxlen", ["data.max_length", "data.path", "loss.per"], "Did you mean data.max_length?"),
        ("lr", ["optimizer.lr", "data.path"], "Did you mean optimizer.lr?"),
        ("optim.lr", ["optimizer.lr", "data.path"], "Did you mean optimizer.lr?"),
        ("sampler.stpes", ["sampler.steps", "trainer.max_steps"], "Did you mean sampler.steps?"),
    ],
)
def test_the_nearest_names_are_looked_for_where_they_are_likely(key: str, keys: list[str], found: str) -> None:
    assert no_such_key(key, keys).endswith(found)


def test_the_configuration_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (conf_dir() / "generate.yaml").is_file()


def test_launching_imports_nothing_heavy() -> None:
    code = "import sys, dllm_lightning.launch; print(*{'torch', 'lightning', 'transformers'} & sys.modules.keys())"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == ""
