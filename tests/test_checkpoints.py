"""A checkpoint carries its recipe as plain values, runs nothing as it loads, and is the model that was trained."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.testing import assert_close

from dllm_lightning.assemble import Run, assemble
from dllm_lightning.backbone import ModernBert
from dllm_lightning.checkpoints import NoModel, checkpoint_in, read_checkpoint
from dllm_lightning.data.toy import toy_tokenizer
from dllm_lightning.loading import load
from dllm_lightning.process import FloorCount
from dllm_lightning.resume import to_resume
from dllm_lightning.types import Canvas
from tests.conf.configurations import TINY, TINY_TOY, composed


class Trained(NamedTuple):
    folder: Path
    run: Run


class Weights(L.Callback):
    """Remembers the decoder's bias after every step."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        self.seen.append(pl_module.backbone.network.decoder.bias.detach().clone())


def configured(folder: Path, *overrides: str) -> DictConfig:
    steps = "trainer.max_steps=4", "trainer.val_check_interval=2", "callbacks.progress=null"
    cfg = composed(*TINY, *TINY_TOY, *steps, "process/hiding=floor_count", "noise.max_ratio=0.9", *overrides).copy()
    cfg.folder = str(folder)
    return cfg


def train(folder: Path, *overrides: str, extra: list[L.Callback] | None = None) -> Trained:
    run = assemble(configured(folder, *overrides))
    run.trainer.callbacks[:0] = extra or []  # type: ignore[attr-defined]
    run.trainer.fit(run.module, run.data)
    return Trained(folder, run)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("run"), "optimizer.lr=1e-2")


def last(trained: Trained) -> Path:
    return trained.folder / "checkpoints" / "last.ckpt"


def question(template: Any, text: str = "what is 1 plus 2?") -> Canvas:
    document = template.prompt([{"role": "user", "content": text}], 5)
    return Canvas.left_padded([document], template.tokenizer.pad_token_id)


@torch.no_grad()
def logits(backbone: Any, canvas: Canvas) -> Tensor:
    return backbone.eval()(canvas.ids, torch.ones(canvas.ids.shape), canvas.segment, torch.arange(canvas.ids.numel()))


def test_a_loaded_model_has_the_logits_of_the_trained_one(trained: Trained) -> None:
    loaded = load(last(trained))
    canvas = question(loaded.template)
    assert_close(logits(loaded.backbone, canvas), logits(trained.run.module.backbone, canvas), rtol=0, atol=0)
    assert {p.dtype for p in loaded.backbone.parameters()} == {torch.float32}


def test_a_loaded_model_has_its_process_tokenizer_template_and_sampler_back(trained: Trained) -> None:
    loaded, run = load(trained.folder), trained.run
    assert loaded.process == run.module.process and loaded.process.hiding == FloorCount()
    assert loaded.process.schedule.max_ratio == 0.9
    assert torch.equal(loaded.process.vocab.noise_ids, run.module.process.vocab.noise_ids)
    assert loaded.tokenizer.get_vocab() == run.data.tokenizer.get_vocab()
    assert loaded.template.fingerprint == run.data.template.fingerprint
    x = loaded.sampler.sample(loaded.denoiser(), question(loaded.template))
    assert (x != loaded.tokenizer.mask_token_id).all()
    assert not loaded.backbone.training


def test_a_recipe_is_plain_values(trained: Trained) -> None:
    """What json can write, and what torch reads back without trusting it."""
    recipe = torch.load(last(trained), weights_only=True)["recipe"]
    assert json.loads(json.dumps(recipe)) == recipe
    assert recipe.keys() == {"config", "backbone", "tokenizer", "command"}
    assert recipe["config"]["noise"]["max_ratio"] == 0.9
    assert "trainer" not in recipe["config"] and "folder" not in recipe["config"]


def test_a_folder_gives_its_best_checkpoint_and_else_its_last(trained: Trained, tmp_path: Path) -> None:
    assert checkpoint_in(trained.folder) == trained.folder / "checkpoints" / "best.ckpt"
    assert checkpoint_in(last(trained)) == last(trained)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").symlink_to(last(trained))
    assert checkpoint_in(tmp_path).name == "last.ckpt"


def test_a_validation_that_is_no_better_still_moves_the_last_checkpoint(tmp_path: Path) -> None:
    """With a learning rate that wrecks the network, the best stays behind."""
    lost = train(
        tmp_path, "optimizer.lr=5", "optimizer.warmup=3", "trainer.max_steps=6", "trainer.val_check_interval=1"
    )
    steps = {
        name: read_checkpoint(tmp_path / "checkpoints" / name)["global_step"] for name in ("best.ckpt", "last.ckpt")
    }
    assert steps["best.ckpt"] < steps["last.ckpt"] == lost.run.trainer.global_step == 6


def test_an_averaged_run_is_validated_and_loaded_by_its_average(tmp_path: Path) -> None:
    weights = Weights()
    options = "callbacks=ema", "callbacks.ema.decay=0.5", "trainer.val_check_interval=4", "optimizer.lr=1e-2"
    run = train(tmp_path, *options, extra=[weights])
    average = weights.seen[0]
    for each in weights.seen[1:]:
        average = 0.5 * average + 0.5 * each
    loaded = load(last(run))
    assert_close(loaded.backbone.network.decoder.bias, average)
    assert (average - weights.seen[-1]).abs().max() > 1e-4
    raw = torch.load(last(run), weights_only=True)["current_model_state"]
    assert_close(raw["backbone.network.decoder.bias"], weights.seen[-1])
    scored = float(run.run.trainer.callback_metrics["val/nelbo"])
    again = assemble(configured(tmp_path / "again"))
    again.module.backbone.load_state_dict(loaded.backbone.state_dict())
    again.trainer.validate(again.module, again.data, verbose=False)
    assert float(again.trainer.callback_metrics["val/nelbo"]) == pytest.approx(scored, rel=1e-6)


def test_a_hugging_face_folder_answers(tmp_path: Path) -> None:
    tokenizer = toy_tokenizer()
    sizes = {"model_type": "modernbert", "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    backbone = ModernBert(config=sizes | {"num_hidden_layers": 1, "vocab_size": len(tokenizer) + 3, "pad_token_id": 0})
    backbone.network.save_pretrained(tmp_path)
    with pytest.raises(NoModel, match=r"holds a network but no tokenizer; put its tokenizer\.json there"):
        load(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load(str(tmp_path))
    canvas = question(loaded.template)
    assert_close(logits(loaded.backbone, canvas), logits(backbone, canvas))
    x = loaded.sampler.sample(loaded.denoiser(), canvas)[canvas.editable]
    assert ((x != tokenizer.mask_token_id) & (x < len(tokenizer))).all()


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


def test_what_is_no_model_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "garbage.ckpt").write_bytes(b"\x80\x02garbage")
    (tmp_path / "empty.ckpt").touch()
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    (tmp_path / "folder").mkdir()
    for name, sentence in {
        "garbage.ckpt": "is no readable checkpoint",
        "empty.ckpt": "is no readable checkpoint",
        "foreign.ckpt": "carries no recipe",
        "list.ckpt": "carries no recipe",
        "folder": r"holds no checkpoint \(checkpoints/best\.ckpt or last\.ckpt\) and no config\.json",
        "nowhere": "There is nothing at ckpt=",
    }.items():
        with pytest.raises(NoModel, match=sentence) as refused:
            load(tmp_path / name)
        assert "\n" not in str(refused.value)


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, trained: Trained) -> None:
    torch.save({"recipe": Evil(tmp_path / "made"), "state_dict": {}}, tmp_path / "evil.ckpt")
    for read in (load, read_checkpoint):
        with pytest.raises(NoModel, match="is no readable checkpoint"):
            read(tmp_path / "evil.ckpt")
    with pytest.raises(NoModel, match="is no readable checkpoint"):
        to_resume(str(tmp_path / "evil.ckpt"), tmp_path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "target",
    ["os.mkdir", "dllm_lightning.checkpoints.torch.save", "dllm_lightning.loading.load", "dllm_lightning.nothing.At"],
)
@pytest.mark.parametrize("part", ["noise", "process.hiding", "data.template", "sampler", "backbone"])
def test_a_recipe_that_names_anything_but_our_classes_is_refused(
    tmp_path: Path, trained: Trained, target: str, part: str
) -> None:
    """Hydra would call whatever a `_target_` says."""
    checkpoint = torch.load(last(trained), weights_only=True)
    node = checkpoint["recipe"]["config"]
    for name in part.split("."):
        node = node[name]
    node.clear()
    node.update({"_target_": target, "path": str(tmp_path / "made")})
    torch.save(checkpoint, tmp_path / "changed.ckpt")
    with pytest.raises(NoModel, match="it will not be built"):
        load(tmp_path / "changed.ckpt")
    assert not (tmp_path / "made").exists()


def test_a_tokenizer_file_outside_of_its_folder_is_refused(tmp_path: Path, trained: Trained) -> None:
    checkpoint = torch.load(last(trained), weights_only=True)
    checkpoint["recipe"]["tokenizer"][str(tmp_path / "made")] = "text"
    torch.save(checkpoint, tmp_path / "changed.ckpt")
    with pytest.raises(NoModel, match="lies outside its folder"):
        load(tmp_path / "changed.ckpt")
    assert not (tmp_path / "made").exists()
