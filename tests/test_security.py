"""Nothing that a user names is run: no pickle, no code that comes with a model, no class that is not of this package.

Each attack makes a folder when it succeeds. The person at the terminal would answer yes to any question.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dllm_lightning.backbone.networks import InvalidBackbone, fresh
from tests.conf.configurations import TINY, Terminal, save_chat
from tests.publish.models import MODERN, change, save_foreign, train

CODE = """
import os, transformers
os.makedirs({made!r}, exist_ok=True)
class Config(transformers.ModernBertConfig):
    model_type = "unheard_of"
class Model(transformers.ModernBertForMaskedLM):
    config_class = Config
class Tokenizer(transformers.PreTrainedTokenizerFast):
    pass
"""


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.made),)


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 100))
    return Terminal(tmp_path, monkeypatch, capsys)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("run"), *MODERN)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return tmp_path / "made"


Attack = Callable[[Path, Path], str]
"""Spoils a good folder, so that reading it would make another one; returns the file that holds the attack."""


def pickled_weights(folder: Path, made: Path) -> str:
    (folder / "model.safetensors").unlink()
    torch.save({"model.embeddings.tok_embeddings.weight": Evil(made)}, folder / "pytorch_model.bin")
    return "pytorch_model.bin"


def bare_pickle(folder: Path, made: Path) -> str:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(made)))
    return "pytorch_model.bin"


def pickled_shards(folder: Path, made: Path) -> str:
    (folder / "model.safetensors").unlink()
    torch.save({"decoder.bias": Evil(made)}, folder / "pytorch_model-00001-of-00001.bin")
    index = {"metadata": {}, "weight_map": {"decoder.bias": "pytorch_model-00001-of-00001.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return "pytorch_model-00001-of-00001.bin"


def shards_that_name_a_pickle(folder: Path, made: Path) -> str:
    (folder / "model.safetensors").unlink()
    torch.save({"decoder.bias": Evil(made)}, folder / "shard.pt")
    index = {"metadata": {}, "weight_map": {"decoder.bias": "shard.pt"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return str(folder)


def a_pickle_by_another_name(folder: Path, made: Path) -> str:
    torch.save({"decoder.bias": Evil(made)}, folder / "model.safetensors")
    return str(folder)


def code_for_the_network(folder: Path, made: Path) -> str:
    (folder / "code.py").write_text(CODE.format(made=str(made)))
    auto = {"AutoConfig": "code.Config", "AutoModelForMaskedLM": "code.Model"}
    change(folder / "config.json", model_type="unheard_of", auto_map=auto)
    return "config.json"


def code_for_a_network_of_another_kind(folder: Path, made: Path) -> str:
    """transformers knows the type, and has no masked language model of it."""
    (folder / "code.py").write_text(CODE.format(made=str(made)))
    change(folder / "config.json", model_type="gpt2", auto_map={"AutoModelForMaskedLM": "code.Model"})
    return "config.json"


NETWORKS = (
    pickled_weights,
    bare_pickle,
    pickled_shards,
    shards_that_name_a_pickle,
    a_pickle_by_another_name,
    code_for_the_network,
    code_for_a_network_of_another_kind,
)


def code_for_the_tokenizer(folder: Path, made: Path) -> str:
    (folder / "code.py").write_text(CODE.format(made=str(made)))
    auto = {"AutoTokenizer": ["code.Tokenizer", "code.Tokenizer"]}
    change(folder / "tokenizer_config.json", tokenizer_class="Unheard", auto_map=auto)
    return "tokenizer_config.json"


def code_in_the_chat_template(folder: Path, made: Path) -> str:
    reach = f"''.__class__.__base__.__subclasses__()[0].__init__.__globals__['os'].mkdir({str(made)!r})"
    (folder / "chat_template.jinja").write_text("{{ " + reach + " }}")
    return "chat template"


def refused(terminal: Terminal, made: Path, said: str, *typed: str, entry: str) -> None:
    ran = terminal(*typed, entry=entry)
    assert not made.exists()
    assert ran.code == 2 and ran.err.count("\n") == 1 and said in ran.err, ran.err
    assert "Do you wish to run" not in ran.out


@pytest.mark.parametrize("attack", [*NETWORKS, code_in_the_chat_template])
def test_a_folder_to_talk_to(attack: Attack, terminal: Terminal, made: Path) -> None:
    folder = save_foreign(terminal.folder / "model")
    refused(terminal, made, attack(folder, made), f"ckpt={folder}", "prompt=hello", entry="generate")


@pytest.mark.parametrize("attack", NETWORKS)
def test_a_network_to_train_on(attack: Attack, terminal: Terminal, made: Path) -> None:
    folder = save_foreign(terminal.folder / "model")
    save_foreign(terminal.folder / "tokenizer")
    tiny = [each for each in TINY if not each.startswith("backbone")]
    data = f"data.path={save_chat(terminal.folder / 'chat.jsonl')}", f"data.cache_dir={terminal.folder / 'cache'}"
    refused(
        terminal,
        made,
        attack(folder, made),
        *(*tiny, *data, f"data.tokenizer={terminal.folder / 'tokenizer'}", f"backbone.pretrained={folder}"),
        entry="train",
    )


@pytest.mark.parametrize("attack", [code_for_the_tokenizer, code_in_the_chat_template])
def test_a_tokenizer_to_train_with(attack: Attack, terminal: Terminal, made: Path) -> None:
    folder = save_foreign(terminal.folder / "model")
    (folder / "config.json").unlink()  # by which transformers would choose a class that it knows
    said = attack(folder, made)
    data = f"data.path={save_chat(terminal.folder / 'chat.jsonl')}", f"data.cache_dir={terminal.folder / 'cache'}"
    typed = *TINY, *data, f"data.tokenizer={folder}", "data/template=native"
    refused(terminal, made, said, *typed, entry="train")


def test_code_beside_a_model_that_transformers_knows_is_left_alone(terminal: Terminal, made: Path) -> None:
    folder = save_foreign(terminal.folder / "model")
    (folder / "code.py").write_text(CODE.format(made=str(made)))
    change(folder / "config.json", auto_map={"AutoConfig": "code.Config", "AutoModelForMaskedLM": "code.Model"})
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.Tokenizer", "code.Tokenizer"]})
    ran = terminal(f"ckpt={folder}", "prompt=hello", "length=2", entry="generate")
    assert ran.code == 0 and not made.exists()


def test_sizes_that_name_code_are_refused(terminal: Terminal, made: Path) -> None:
    (terminal.folder / "code.py").write_text(CODE.format(made=str(made)))
    sizes = {"model_type": "gpt2", "_name_or_path": str(terminal.folder)}
    with pytest.raises(InvalidBackbone, match="No network can be made"):
        fresh(sizes | {"auto_map": {"AutoModelForMaskedLM": "code.Model"}}, "sdpa")
    assert not made.exists()


@pytest.mark.parametrize(
    ("entry", "named"),
    [("generate", "ckpt={} prompt=hello"), ("export", "run={} out=model"), ("train", "resume={}")],
    ids=["generate", "export", "train"],
)
@pytest.mark.parametrize("write", [torch.save, lambda found, file: file.write_bytes(pickle.dumps(found))])
def test_a_checkpoint(
    write: Callable[[Any, Path], Any], entry: str, named: str, terminal: Terminal, made: Path
) -> None:
    file = terminal.folder / "evil.ckpt"
    write({"recipe": Evil(made), "state_dict": {}}, file)
    typed = named.format(file).split()
    refused(terminal, made, "evil.ckpt", *([*TINY, "data=toy", *typed] if entry == "train" else typed), entry=entry)


@pytest.mark.parametrize("part", ["noise", "process.hiding", "data.template", "sampler", "backbone"])
@pytest.mark.parametrize("target", ["os.mkdir", "dllm_lightning.loading.json.loads", "dllm_lightning.loading.load"])
def test_the_recipe_in_a_folder(part: str, target: str, run: Path, terminal: Terminal, made: Path) -> None:
    """Hydra would call whatever a `_target_` says."""
    assert terminal(f"run={run}", "out=model", entry="export").code == 0
    file = terminal.folder / "model" / "dllm_lightning.json"
    recipe = json.loads(file.read_text())
    node = recipe["config"]
    for name in part.split("."):
        node = node[name]
    node.clear()
    node.update({"_target_": target, "path": str(made)})
    file.write_text(json.dumps(recipe))
    said = f"asks for {target!r}, which is no part of dllm_lightning: it will not be built."
    refused(terminal, made, said, "ckpt=model", "prompt=hello", entry="generate")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{half", "dllm_lightning.json' is not JSON"),
        ("[1, 2]", "dllm_lightning.json' holds no JSON object, but '[1, 2]'."),
        ("{}", "dllm_lightning.json' says nothing of noise"),
        ('{"config": {"noise": {}}}', "dllm_lightning.json' says nothing of process"),
        ('{"config": {"noise": "${oc.env:HOME}"}}', "dllm_lightning.json' says nothing of noise"),
        ('{"config": {"noise": "${nothing}"}}', "dllm_lightning.json' cannot be read"),
        ('{"config": 3}', "dllm_lightning.json' cannot be read"),
    ],
    ids=str,
)
def test_a_recipe_that_is_none(text: str, said: str, terminal: Terminal, made: Path) -> None:
    folder = save_foreign(terminal.folder / "model")
    (folder / "dllm_lightning.json").write_text(text)
    refused(terminal, made, said, "ckpt=model", "prompt=hello", entry="generate")


def test_the_tokenizer_in_a_checkpoint(run: Path, terminal: Terminal, made: Path) -> None:
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    files = checkpoint["recipe"]["tokenizer"]
    auto = {"auto_map": {"AutoTokenizer": ["code.Tokenizer", "code.Tokenizer"]}, "tokenizer_class": "Unheard"}
    files["tokenizer_config.json"] = json.dumps(json.loads(files["tokenizer_config.json"]) | auto)
    files["code.py"] = CODE.format(made=str(made))
    torch.save(checkpoint, terminal.folder / "changed.ckpt")
    refused(terminal, made, "auto_map", "ckpt=changed.ckpt", "prompt=hello", entry="generate")
