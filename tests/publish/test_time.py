"""A Duo leaves the house: a plain network, what tells it the noise, and a card that walks from random tokens."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoModelForMaskedLM

from dllm_lightning.backbone import ModernBert
from dllm_lightning.backbone.time_embedding import TIME_FILE
from dllm_lightning.export import main
from dllm_lightning.loading import Loaded, load
from dllm_lightning.process import MaskedDiffusion
from dllm_lightning.publish import CannotPublish, Origin, publish
from dllm_lightning.publish.sampling_uniform import ranges
from dllm_lightning.publish.tokenizer import TALK
from dllm_lightning.sampler import Ancestral, Reveal, Sampler
from dllm_lightning.types import Canvas
from tests.conf.configurations import TINY, Terminal, composed, save_chat
from tests.publish.models import DUO, FILES, TIMED, train

LEVELS = (1e-7, 0.02, 0.5, 0.97, 1.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("run"), *DUO)


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(tmp_path, monkeypatch, capsys)


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    main(composed(entry="export"), run=str(run), out=str(run / "model"))
    return run / "model"


def asked(loaded: Loaded) -> Canvas:
    return Canvas.left_padded([loaded.template.prompt(TALK[:1], 6)], loaded.tokenizer.pad_token_id)


@torch.no_grad()
def logits(loaded: Loaded, level: float) -> Tensor:
    ids = asked(loaded).ids
    every = torch.arange(ids.numel())
    return loaded.backbone(ids, torch.full(ids.shape, level), torch.ones_like(ids), every)


def republished(loaded: Loaded, folder: Path) -> Path:
    """The folder of a model that has been changed."""
    folder.mkdir()
    config: Any = OmegaConf.to_container(loaded.config)
    publish(loaded, Origin(config, 6, {}, None, averaged=False, raw=False), folder, "Changed", ".")
    return folder


def program(folder: Path) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    return code


def test_the_network_is_plain_and_its_time_embedding_lies_beside_it(run: Path, exported: Path) -> None:
    assert {file.name for file in exported.iterdir()} == TIMED
    network, info = AutoModelForMaskedLM.from_pretrained(exported, output_loading_info=True)
    assert not any(info.values())
    ours = load(run).backbone
    assert_close(dict(network.state_dict()), dict(ours.network.state_dict()), rtol=0, atol=0)  # type: ignore[union-attr]
    weights = load_file(exported / TIME_FILE)
    assert_close(weights.pop("frequencies"), ours.time.frequencies, rtol=0, atol=0)  # type: ignore[union-attr]
    assert_close(weights, dict(ours.time.state_dict()), rtol=0, atol=0)  # type: ignore[union-attr]


def test_a_folder_believes_what_the_checkpoint_believes_at_every_level_of_noise(run: Path, exported: Path) -> None:
    before, after = load(run), load(exported)
    for level in LEVELS:
        assert_close(logits(after, level), logits(before, level), rtol=0, atol=0)
    assert not torch.allclose(logits(after, 0.02), logits(after, 0.97), rtol=0, atol=1e-4)
    assert after.process == before.process and after.sampler == before.sampler == Ancestral(steps=4)


def test_a_folder_says_what_the_checkpoint_says(run: Path, exported: Path, terminal: Terminal) -> None:
    def said(ckpt: Path) -> dict[str, Any]:
        ran = terminal(f"ckpt={ckpt}", "prompt=How much is 3 + 4?", "format=json", "seed=5", entry="generate")
        assert (ran.code, ran.err) == (0, "")
        return json.loads(ran.out) | {"seconds": 0}

    assert said(exported) == said(run)


def test_without_its_time_embedding_no_network_passes_for_a_model(exported: Path, terminal: Terminal) -> None:
    def refused(said: str) -> None:
        ran = terminal(f"ckpt={folder}", "prompt=hello", entry="generate")
        assert ran.code == 2 and said in ran.err and ran.err.count("\n") == 1, ran.err

    folder = shutil.copytree(exported, terminal.folder / "model")
    file = folder / TIME_FILE
    save_file({name: torch.zeros(3, 3) for name in load_file(file)}, file)
    refused("does not belong to the network beside it (size mismatch for ")
    file.write_bytes(b"half")
    refused("does not belong to the network beside it (")
    file.unlink()
    refused(f"are missing: put {TIME_FILE} there, or export the model again.")


def answers_as(loaded: Loaded, sampler: Sampler, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the card's program, which has to write what the sampler writes by the same draws."""
    monkeypatch.chdir(folder)
    code = program(folder)
    assert "dllm" not in code
    exec(code, found := {})
    ours = sampler.sample(loaded.denoiser(), asked(loaded), torch.Generator().manual_seed(0))
    assert torch.equal(found["ids"], ours)
    assert len(set(ours[asked(loaded).editable].tolist())) > 1
    return found


def test_the_cards_program_walks_as_ancestral_sampling_does(
    run: Path, exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the same random tokens, by the same draws, to the same text, 64 steps later."""
    ours = load(run)
    found = answers_as(ours, Ancestral(steps=64, greedy_tail=True), exported, monkeypatch)
    assert capsys.readouterr().out.strip() == ours.template.answer(found["ids"][asked(ours).editable]).strip()
    assert torch.equal(found["states"], ours.process.states)  # type: ignore[attr-defined]
    for level in LEVELS:
        theirs = found["told"](level)
        assert_close(theirs, ours.backbone.time(torch.tensor([[level]]))[0, 0], rtol=0, atol=1e-6)  # type: ignore[operator]


def test_so_does_that_of_a_network_without_a_clock_and_of_noise_that_begins_short_of_the_end(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(exported)
    schedule = dataclasses.replace(loaded.process.schedule, max_ratio=0.999)
    timeless = dataclasses.replace(loaded, process=dataclasses.replace(loaded.process, schedule=schedule))
    timeless.backbone.time = None
    folder = republished(timeless, tmp_path / "timeless")
    assert {file.name for file in folder.iterdir()} == FILES and "noise = 64, 0.999" in program(folder)
    answers_as(timeless, Ancestral(steps=64, greedy_tail=True), folder, monkeypatch)


def test_a_masked_network_with_a_clock_is_told_the_time_by_its_card_too(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(exported)
    masked = dataclasses.replace(loaded, process=MaskedDiffusion(loaded.process.vocab, loaded.process.schedule))
    folder = republished(masked, tmp_path / "masked")
    assert {file.name for file in folder.iterdir()} == TIMED and "told(min(len(empty) / slots" in program(folder)
    answers_as(masked, Reveal(), folder, monkeypatch)


def test_the_card_speaks_of_random_tokens(exported: Path) -> None:
    card = ModelCard.load(exported / "README.md")
    assert {"uniform-diffusion"} == {tag for tag in card.data.tags if tag.endswith("-diffusion")}
    assert card.data.pipeline_tag == "text-generation" and f"`{TIME_FILE}`" in card.text
    assert "it starts from an answer of\nrandom tokens" in card.text and "Every slot can be corrected" in card.text
    assert "masked diffusion" not in card.text and "not written yet" not in card.text
    assert "| val/nelbo |" in card.text and "bound on the negative log-likelihood" in card.text


def test_a_process_without_words_for_a_card_is_not_published(exported: Path, tmp_path: Path) -> None:
    strange: Any = dataclasses.replace(load(exported), process=object())
    with pytest.raises(CannotPublish, match="how object answers: it has words for MaskedDiffusion or UniformDiffusion"):
        republished(strange, tmp_path / "strange")


@pytest.mark.parametrize(
    ("ids", "written"), [([], ""), ([4], "4"), ([4, 5], "*range(4, 6)"), ([1, 3, 4, 5, 9], "1, *range(3, 6), 9")]
)
def test_ids_are_written_as_ranges(ids: list[int], written: str) -> None:
    assert ranges(ids) == written and eval(f"[{written}]") == ids


def test_an_exported_duo_is_trained_on(exported: Path, terminal: Terminal) -> None:
    """With what it has learnt of the noise, too."""
    tiny = [each for each in TINY if not each.startswith("backbone")]
    ran = terminal(
        *tiny,
        "model=duo",
        "loss=ce",
        "sampler.steps=4",
        "backbone=modernbert",
        f"backbone.pretrained={exported}",
        f"data.tokenizer={exported}",
        f"data.path={save_chat(terminal.folder / 'chat.jsonl')}",
        f"data.cache_dir={terminal.folder / 'cache'}",
        "optimizer.lr=1e-9",
        "run=again",
    )
    assert ran.code == 0, ran.err
    before, after = (load(each).backbone.state_dict() for each in (exported, terminal.folder / "runs" / "again"))
    assert_close(dict(after), dict(before), rtol=0, atol=1e-6)


def test_a_network_that_was_never_told_the_time_begins_to_be_told_at_zero(exported: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "untold")
    (folder / TIME_FILE).unlink()
    time: Any = ModernBert(str(folder), time_conditioning=True).time
    assert not time.outer.weight.any() and not time.outer.bias.any()
    assert ModernBert(str(exported)).time is None
