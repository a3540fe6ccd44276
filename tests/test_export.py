"""python -m dllm_lightning.export: a folder that plain transformers loads, and that is still the model it was."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoModelForMaskedLM, AutoTokenizer

from dllm_lightning.loading import Loaded, load
from dllm_lightning.sampler import Reveal
from dllm_lightning.types import Canvas
from tests.conf.configurations import Terminal
from tests.publish.models import BERT, FILES, MODERN, train

QUESTION = [{"role": "user", "content": "How much is 3 + 4?"}]
ALONE = """
import json, sys
sys.modules.update(dllm_lightning=None, lightning=None)  # importing them fails
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer
model, tokenizer = AutoModelForMaskedLM.from_pretrained(sys.argv[1]).eval(), AutoTokenizer.from_pretrained(sys.argv[1])
messages = [{"role": "user", "content": "How much is 3 + 4?"}]
ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
with torch.no_grad():
    logits = model(torch.tensor([ids := ids + [tokenizer.mask_token_id] * 6])).logits
print(json.dumps([ids, logits[0].tolist()]))
"""


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(tmp_path, monkeypatch, capsys)


@pytest.fixture(
    scope="module", params=[(*MODERN, "callbacks=ema", "callbacks.ema.decay=0.5"), BERT], ids=["ema", "bert"]
)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("run"), *request.param)


@pytest.fixture
def averaged(run: Path) -> Path:
    if "current_model_state" not in torch.load(run / "checkpoints" / "last.ckpt", weights_only=True):
        pytest.skip("this run keeps no average")
    return run


@pytest.fixture
def exported(run: Path, terminal: Terminal) -> Path:
    ran = terminal(f"run={run}", "out=model", entry="export")
    assert (ran.code, ran.err) == (0, "")
    return terminal.folder / "model"


def asked(loaded: Loaded) -> Canvas:
    return Canvas.left_padded([loaded.template.prompt(QUESTION, 6)], loaded.tokenizer.pad_token_id)


@torch.no_grad()
def logits(loaded: Loaded) -> Tensor:
    ids = asked(loaded).ids
    every = torch.arange(ids.numel())
    return loaded.backbone(ids, torch.ones(ids.shape), torch.ones_like(ids), every)


def test_a_folder_holds_what_others_load_and_nothing_else(exported: Path) -> None:
    assert {file.name for file in exported.iterdir()} == FILES
    assert {file.name for file in exported.parent.iterdir()} == {"model"}
    modes = {file.stat().st_mode for file in exported.iterdir()}
    assert len(modes) == 1 and modes.pop() & 0o400
    (architecture,) = json.loads((exported / "config.json").read_text())["architectures"]
    assert architecture.endswith("ForMaskedLM")


@torch.no_grad()
def test_plain_transformers_reads_the_same_ids_and_gives_the_same_logits(run: Path, exported: Path) -> None:
    network, tokenizer = AutoModelForMaskedLM.from_pretrained(exported), AutoTokenizer.from_pretrained(exported)
    ours = load(run)
    prompt = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True)["input_ids"]
    assert [*prompt, *[tokenizer.mask_token_id] * 6] == asked(ours).ids[0].tolist()
    assert_close(network.eval()(asked(ours).ids).logits[0], logits(ours), rtol=0, atol=1e-6)


def test_so_does_a_process_that_can_import_neither_this_package_nor_lightning(
    averaged: Path, exported: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", ALONE, str(exported)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    ids, theirs = json.loads(ran.stdout)
    ours = load(averaged)
    assert ids == asked(ours).ids[0].tolist()
    assert_close(torch.tensor(theirs), logits(ours), rtol=0, atol=1e-6)


def test_a_folder_is_loaded_with_everything_that_the_run_knew(run: Path, exported: Path) -> None:
    before, after = load(run), load(exported)
    assert_close(logits(after), logits(before), rtol=0, atol=0)
    assert after.process == before.process and after.process.schedule.max_ratio == 0.9
    assert torch.equal(after.process.vocab.noise_ids, before.process.vocab.noise_ids)
    assert (after.sampler, type(after.template)) == (before.sampler, type(before.template))
    assert after.template.end_id == before.template.end_id and after.template.control_ids == before.template.control_ids
    assert after.config.data.answer_length == before.config.data.answer_length == 6


def test_the_card_shows_how_to_ask_and_its_code_answers_as_we_do(
    run: Path, exported: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(), re.DOTALL)
    assert "dllm" not in code
    monkeypatch.chdir(exported)
    exec(code, {})
    said = terminal.capsys.readouterr().out.strip()
    ours = load(run)
    canvas = asked(ours)
    answer = Reveal().sample(ours.denoiser(), canvas)[canvas.editable]
    assert len(set(answer.tolist())) > 1  # all slots alike would not tell the orders apart
    assert said == ours.template.answer(answer)


def test_the_hub_can_read_the_card(exported: Path) -> None:
    card = ModelCard.load(exported / "README.md")
    assert card.data.library_name == "transformers" and "masked-diffusion" in card.data.tags
    assert "`[unused3]` (8)" in card.text and "6 optimizer steps" in card.text


def test_the_average_is_exported_unless_the_raw_weights_are_asked_for(averaged: Path, terminal: Terminal) -> None:
    for weights, key in {"ema": "state_dict", "raw": "current_model_state"}.items():
        assert terminal(f"run={averaged}", f"out={weights}", f"weights={weights}", entry="export").code == 0
        state = torch.load(averaged / "checkpoints" / "best.ckpt", weights_only=True)[key]
        network = AutoModelForMaskedLM.from_pretrained(terminal.folder / weights)
        for name, weight in network.state_dict().items():
            assert_close(weight, state[f"backbone.network.{name}"], rtol=0, atol=0)
    raw, ema = ((terminal.folder / name / "README.md").read_text() for name in ("raw", "ema"))
    assert "averaged over the steps" in ema and "the last step's, not their average" in raw


def test_a_checkpoint_can_be_exported_by_its_name(run: Path, terminal: Terminal) -> None:
    file = run / "checkpoints" / "last.ckpt"
    odd = terminal.folder / "step=6, {odd}.ckpt"
    odd.symlink_to(file)
    assert terminal(f"run={odd}", "out=a = b", entry="export").out.startswith(f"{odd} is in {terminal.folder}/a = b\n")
    assert_close(logits(load(terminal.folder / "a = b")), logits(load(file)), rtol=0, atol=0)


def test_what_is_at_out_stays_unless_it_is_an_export_to_replace(run: Path, exported: Path, terminal: Terminal) -> None:
    (terminal.folder / "notes").mkdir()
    (terminal.folder / "notes" / "mine.txt").write_text("mine")
    (terminal.folder / "empty").mkdir()
    (exported / "extra").touch()
    ran = terminal(f"run={run}", "out=model", entry="export")
    assert ran == (2, "", f"out='{exported}' holds an earlier export: add overwrite=true to replace it.\n")
    for out in ("notes", "notes/mine.txt"):
        ran = terminal(f"run={run}", f"out={out}", "overwrite=true", entry="export")
        assert ran.code == 2 and "is there already and is no earlier export: give another place." in ran.err
    assert (terminal.folder / "notes" / "mine.txt").read_text() == "mine" and (exported / "extra").exists()
    assert terminal(f"run={run}", "out=model", "overwrite=true", entry="export").code == 0
    assert terminal(f"run={run}", "out=empty", entry="export").code == 0
    assert {file.name for file in exported.iterdir()} == FILES
    assert sorted(file.name for file in terminal.folder.iterdir()) == ["empty", "model", "notes"]


@pytest.mark.parametrize("before", [False, True], ids=["a new place", "an earlier export"])
def test_an_error_on_the_way_leaves_everything_as_it_was(
    run: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    out = terminal.folder / "deep" / "model"
    if before:
        assert terminal(f"run={run}", f"out={out}", entry="export").code == 0
    was = {file: file.read_bytes() for file in terminal.folder.rglob("*") if file.is_file()}

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", full)
    ran = terminal(f"run={run}", f"out={out}", "overwrite=true", entry="export")
    assert ran.code == 2 and "The weights could not be written" in ran.err and "No space left on device" in ran.err
    assert {file: file.read_bytes() for file in terminal.folder.rglob("*") if file.is_file()} == was
    assert before or not any(terminal.folder.iterdir())


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("out=model",), "Nothing to export: give run=PATH, the folder of a run or a checkpoint."),
        (("run=run",), "Nowhere to export to: give out=FOLDER, a new one."),
        (("run=nothing", "out=model"), "There is nothing at "),
        (("run=run", "out=model", "weights=mean"), "weights=mean is unknown: choose one of ema, raw."),
        (("run=run", "out=model", "private=maybe"), "private=maybe is neither true nor false."),
        (("run=run", "out=model", "overwirte=true"), "There is no option 'overwirte'. Did you mean overwrite?"),
        (("run=run", "out=model", "hub=a/b/c"), "hub='a/b/c' is no name of a repository: give hub=user/name."),
        (("run=run", "out=model", "hub=name"), "hub='name' is no name of a repository: give hub=user/name."),
        (("run=run", "out=model", "hub=3"), "hub=3 is no name of a repository: give hub=user/name."),
        (("run=run", "out=model", "hub=me/it"), "hub='me/it' needs a token: log in with `hf auth login`, or set HF_"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_a_wrong_option_is_one_sentence_and_leaves_nothing(
    typed: tuple[str, ...], said: str, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    ran = terminal(*typed, entry="export")
    assert ran.code == 2 and ran.err.startswith(said) and ran.err.count("\n") == 1
    assert not any(terminal.folder.iterdir())
