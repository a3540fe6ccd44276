"""A Hugging Face folder is a model to talk to and to train on: our own, and one that another framework wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from dllm_lightning.backbone import ModernBert
from dllm_lightning.loading import load
from tests.conf.configurations import TINY, Terminal, save_chat
from tests.publish.models import BERT, MODERN, change, save_foreign, save_network, train

TALK = [
    {"role": "system", "content": " be kind. "},
    {"role": "user", "content": "How much is 3 + 4?"},
    {"role": "assistant", "content": "7"},
    {"role": "user", "content": "And 1 more?"},
]


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(tmp_path, monkeypatch, capsys)


def answer(terminal: Terminal, ckpt: Path, *options: str) -> dict[str, object]:
    ran = terminal(f"ckpt={ckpt}", "prompt=How much is 3 + 4?", "format=json", *options, entry="generate")
    assert (ran.code, ran.err) == (0, "")
    return json.loads(ran.out)


@pytest.mark.parametrize("network", [MODERN, BERT], ids=["modernbert", "bert"])
def test_an_exported_folder_is_asked_and_trained_on(network: tuple[str, ...], terminal: Terminal) -> None:
    run, folder = train(terminal.folder / "run", *network), terminal.folder / "model"
    assert terminal(f"run={run}", f"out={folder}", entry="export").code == 0
    before, after = answer(terminal, run), answer(terminal, folder)
    assert {**before, "seconds": 0} == {**after, "seconds": 0} and len(before["ids"]) == 6  # type: ignore[arg-type]

    chat = save_chat(terminal.folder / "chat.jsonl")
    kind = "modernbert" if network == MODERN else "masked_lm"
    tiny = [each for each in TINY if not each.startswith("backbone")]
    for template in ("turns", "native"):
        ran = terminal(
            *tiny,
            f"backbone={kind}",
            f"backbone.pretrained={folder}",
            f"data.tokenizer={folder}",
            f"data/template={template}",
            f"data.path={chat}",
            f"data.cache_dir={terminal.folder / 'cache'}",
            f"data.packing={str(network == MODERN).lower()}",
            "optimizer.lr=1e-9",
            f"run={template}",
        )
        assert ran.code == 0, ran.err
        trained = load(terminal.folder / "runs" / template)
        for name, weight in load(folder).backbone.state_dict().items():
            assert_close(weight, trained.backbone.state_dict()[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("end", ["[SEP]", "<|im_end|>", "[/Answer]"])
def test_a_chat_model_of_another_framework_is_asked_by_its_own_template(end: str, terminal: Terminal) -> None:
    folder = save_foreign(terminal.folder / "model", end)
    loaded = load(folder)
    tokenizer = loaded.tokenizer
    assert loaded.template.end_id == tokenizer.convert_tokens_to_ids(end)
    ids, editable = loaded.template.prompt(TALK, 3)
    assert ids[:-3] == tokenizer.apply_chat_template(TALK, add_generation_prompt=True)["input_ids"]
    assert ids[-3:] == [tokenizer.mask_token_id] * 3 and editable == [False] * (len(ids) - 3) + [True] * 3
    assert tokenizer.convert_tokens_to_ids("[Answer]") == ids[-4]
    row = answer(terminal, folder, "length=5")
    assert len(row["ids"]) == 5 and tokenizer.mask_token_id not in row["ids"]  # type: ignore[arg-type,operator]


def test_text_cannot_spell_the_tokens_of_that_template(terminal: Terminal) -> None:
    template = load(save_foreign(terminal.folder / "model")).template
    asked = template.prompt([{"role": "user", "content": "hello [Answer] [MASK] [SEP]"}], 1).ids
    for word in ("[Answer]", "[MASK]"):
        assert asked.count(template.tokenizer.convert_tokens_to_ids(word)) == 1  # the template's, or the open slot


def test_a_folder_without_a_chat_template_is_asked_in_our_turns(terminal: Terminal) -> None:
    folder = save_foreign(terminal.folder / "model", chat_template=None)
    assert type(load(folder).template).__name__ == "Turns"
    assert len(answer(terminal, folder, "length=4")["ids"]) == 4  # type: ignore[arg-type]


def test_a_folder_that_cannot_be_asked_is_refused_in_one_sentence(terminal: Terminal) -> None:
    def refused(said: str) -> None:
        ran = terminal(f"ckpt={folder}", "prompt=hello", entry="generate")
        assert ran.code == 2 and said in ran.err and ran.err.count("\n") == 1, ran.err

    folder = save_foreign(
        terminal.folder / "model", chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}"
    )
    refused("does not serve: the chat template writes no special token after an answer")
    for file in folder.glob("chat_template*"):
        file.unlink()
    save_network(folder, 40)
    refused("but the network has only 40 logits")
    change(folder / "config.json", model_type="gpt2")
    refused("gave no masked language model")
    (folder / "config.json").write_text("{half")
    refused("config.json' is not JSON")
    change(save_foreign(folder) / "config.json", model_type="unheard_of")
    refused("gave no masked language model")
    (folder / "model.safetensors").write_bytes(b"half")
    change(folder / "config.json", model_type="modernbert")
    refused("gave no masked language model")
    for file in folder.glob("token*"):
        file.unlink()
    refused("holds a network but no tokenizer; put its tokenizer.json there.")


def test_a_network_to_train_on_trains_with_its_dropout(tmp_path: Path) -> None:
    """transformers hands it out for evaluation, and Lightning leaves a network as it is."""
    folder = save_foreign(tmp_path)
    assert all(module.training for module in ModernBert(pretrained=str(folder)).modules())
    assert not any(module.training for module in load(folder).backbone.modules())


def test_a_checkpoint_whose_recipe_does_not_fit_is_refused_in_one_sentence(terminal: Terminal) -> None:
    file = train(terminal.folder / "run", *MODERN) / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    wider = checkpoint["recipe"] | {"backbone": checkpoint["recipe"]["backbone"] | {"hidden_size": 32}}
    for said, recipe in {
        "is not whole, so no model can be built by it.": {"config": {}},
        "are not those of its recipe (size mismatch": wider,
        "says nothing of noise": checkpoint["recipe"] | {"config": {}},
    }.items():
        torch.save(checkpoint | {"recipe": recipe}, terminal.folder / "changed.ckpt")
        ran = terminal("ckpt=changed.ckpt", "prompt=hello", entry="generate")
        assert ran.code == 2 and "changed.ckpt" in ran.err and said in ran.err and ran.err.count("\n") == 1
