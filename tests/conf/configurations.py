"""What is in conf/, found by looking, so that a new YAML enters the laws by existing; and runs of a size for tests."""

from __future__ import annotations

import importlib
import json
import logging
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from dllm_lightning.launch import launch

CONF = Path(__file__).resolve().parents[2] / "conf"
EXTRAS = {"experiment/search": "optuna", "hydra/launcher/slurm": "submitit"}
"""What an option needs that is not always installed."""
FILES = sorted(
    file
    for file in CONF.rglob("*.yaml")
    if find_spec(EXTRAS.get(file.relative_to(CONF).with_suffix("").as_posix(), "hydra")) is not None
)
ENTRIES = [file for file in FILES if file.parent == CONF]
PARTS = [file for file in FILES if file.parent != CONF]

TINY = (
    "backbone=modernbert_tiny",
    "backbone.config.num_hidden_layers=1",
    "backbone.config.hidden_size=16",
    "backbone.config.num_attention_heads=2",
    "backbone.config.intermediate_size=16",
    "model.validation_draws=1",
    "callbacks.samples.prompts=1",
    "callbacks.samples.lengths=[4]",
    "callbacks.samples.score=0",
    "trainer=cpu",
    "trainer.max_steps=1",
    "logger=csv",
    "data.batch_size=4",
    "data.num_workers=0",
)
"""A run that takes one step in about a second, on whatever data."""
TINY_TOY = ("data=toy", "data.train_size=32", "data.validation_size=8", "data.test_size=8", "data.eval_batch_size=8")

WORDS = ["what", "is", "the", "name", "of", "a", "fruit", "apple", "plum", "pear", "quince"]
SPECIAL = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}


def group(file: Path) -> str:
    """noise, process/hiding, ..."""
    return file.parent.relative_to(CONF).as_posix()


def entry_of(file: Path) -> str:
    """An entry point for which this part can be chosen."""
    return "generate" if group(file) == "cache" else "train"


def names(group: str) -> list[str]:
    """The options of a group."""
    return sorted(file.stem for file in FILES if file.parent == CONF / group)


@cache
def composed(*overrides: str, entry: str = "train") -> DictConfig:
    """What a command line with these overrides gives."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(entry, list(overrides))


def chosen(file: Path) -> DictConfig:
    """The composed configuration of one option, found where the whole configuration keeps it."""
    key = "data.template" if group(file) == "data/template" else group(file).replace("/", ".")
    return OmegaConf.select(composed(f"{group(file)}={file.stem}", entry=entry_of(file)), key)


def targets(cfg: Any, key: str = "") -> Iterator[tuple[str, DictConfig]]:
    """Every node with a `_target_`, and its key."""
    if not isinstance(cfg, DictConfig) or cfg._is_none():
        return
    if "_target_" in cfg:
        yield key, cfg
    for name in map(str, cfg):
        if not OmegaConf.is_interpolation(cfg, name):
            yield from targets(cfg[name], f"{key}.{name}".lstrip("."))


def save_tokenizer(folder: Path, special: dict[str, str] | None = None) -> Path:
    """A tokenizer with a word for everything in `WORDS`, as a folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = SPECIAL if special is None else special
    words = [*special.values(), *(f"[unused{i}]" for i in range(4)), *WORDS]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=special["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return folder


def save_chat(file: Path, rows: int = 48) -> Path:
    """Conversations about fruit, as JSON lines."""
    asked = {"role": "user", "content": "what is the name of a fruit"}
    chats = [[asked, {"role": "assistant", "content": f"a {WORDS[7 + i % 4]}"}] for i in range(rows)]
    file.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    return file


def files(folder: Path) -> tuple[str, ...]:
    """The overrides that point `data=tulu` to a small file and a small tokenizer in `folder`."""
    chat, tokenizer = save_chat(folder / "chat.jsonl"), save_tokenizer(folder / "tokenizer")
    return f"data.path={chat}", f"data.tokenizer={tokenizer}", f"data.cache_dir={folder / 'cache'}"


class Ran(NamedTuple):
    """What came of a command line."""

    code: int
    out: str
    err: str


class Terminal:
    """Runs entry points with command lines, in this process and in `folder`."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.monkeypatch, self.capsys = folder, monkeypatch, capsys
        monkeypatch.chdir(folder)
        monkeypatch.setattr(Hydra, "get_mode", lambda *_, **__: None)  # else it composes twice, to look for hydra.mode
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        monkeypatch.delenv("DLLM_DEBUG", raising=False)

    def __call__(self, *arguments: str, entry: str = "train") -> Ran:
        module = importlib.import_module(f"dllm_lightning.{entry}")
        self.monkeypatch.setattr(sys, "argv", [f"{entry}.py", *arguments])
        root, code = logging.getLogger(), 0
        handlers, level = [*root.handlers], root.level
        try:
            launch(module.main, entry, getattr(module, "VERBATIM", ()))
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        finally:
            root.handlers[:] = handlers  # Hydra's write to a stream that ends with the test
            root.setLevel(level)
            GlobalHydra.instance().clear()
        return Ran(code, *self.capsys.readouterr())
