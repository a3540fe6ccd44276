"""Which checkpoint a run goes on from, what may have changed since, and what may not."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from dllm_lightning.assemble import Run, assemble
from dllm_lightning.checkpoints import NoModel, read_whole
from dllm_lightning.result import read_result, write_result
from dllm_lightning.resume import Changed, check_resumable, to_resume
from dllm_lightning.train import main
from tests.conf.configurations import TINY, TINY_TOY, composed

RUN = (*TINY, *TINY_TOY, "callbacks.progress=null", "trainer.max_steps=4", "trainer.val_check_interval=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run of four steps."""
    found = tmp_path_factory.mktemp("run")
    train(found)
    return found


def train(folder: Path, *overrides: str) -> float | None:
    cfg = composed(*RUN, *overrides).copy()
    cfg.folder = str(folder)
    return main(cfg)


def assembled(*overrides: str) -> Run:
    cfg = composed(*RUN, *overrides).copy()
    cfg.folder = "nowhere"
    return assemble(cfg)


def last(folder: Path) -> Path:
    return folder / "checkpoints" / "last.ckpt"


def test_a_run_goes_on_from_the_last_checkpoint_in_its_folder(folder: Path, tmp_path: Path) -> None:
    assert to_resume("auto", folder) == last(folder)
    assert to_resume("auto", tmp_path) is None
    assert to_resume(None, folder) is None
    assert to_resume(str(last(folder)), tmp_path) == last(folder)
    with pytest.raises(NoModel, match=r"There is no checkpoint at resume='nowhere\.ckpt'"):
        to_resume("nowhere.ckpt", folder)


def test_what_a_killed_run_left_half_written_is_swept_up(tmp_path: Path) -> None:
    leftover = tmp_path / "checkpoints" / ".last.ckpt.partial"
    leftover.parent.mkdir()
    leftover.touch()
    assert to_resume("auto", tmp_path) is None and not leftover.exists()


def test_every_byte_of_a_checkpoint_counts(folder: Path, tmp_path: Path) -> None:
    content = last(folder).read_bytes()
    read_whole(last(folder))
    for place in range(len(content) // 10, len(content), len(content) // 5):
        spoilt = bytearray(content)
        spoilt[place : place + 64] = bytes(byte ^ 0xFF for byte in spoilt[place : place + 64])
        (tmp_path / "spoilt.ckpt").write_bytes(spoilt)
        with pytest.raises(NoModel, match=r"spoilt\.ckpt' is (no readable checkpoint|damaged)"):
            read_whole(tmp_path / "spoilt.ckpt")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("noise=cosine", "noise._target_=dllm_lightning.noise.LogLinear (now dllm_lightning.noise.Cosine)"),
        ("noise.max_ratio=0.9", "noise.max_ratio=1.0 (now 0.9)"),
        ("process/hiding=uniform_count", "process.hiding._target_="),
        ("process.prompt_dropout=0.1", "process.prompt_dropout=0.0 (now 0.1)"),
        ("loss=masked_ce", "loss._target_="),
        ("data.train_size=40", "data.train_size=32 (now 40)"),
        ("data.toy_seed=1", "data.toy_seed=0 (now 1)"),
        ("data.packing=true", "data.packing=False (now True)"),
        ("data/template=original", "data.template._target_="),
        ("backbone.config.hidden_size=32", "backbone.config.hidden_size=16 (now 32)"),
        ("optimizer.lr=1", "optimizer.lr=0.0001 (now 1)"),
        ("seed=3", "seed=0 (now 3)"),
    ],
)
def test_what_makes_it_another_run_is_refused_with_both_values(folder: Path, override: str, said: str) -> None:
    with pytest.raises(Changed) as refused:
        check_resumable(last(folder), assembled(override).module)
    assert said in str(refused.value) and "run=NAME; resume=null starts anew" in str(refused.value)


@pytest.mark.parametrize(
    "override",
    ["trainer.max_steps=9", "data.num_workers=1", "data.batch_size=2", "sampler=random", "sampler.steps=3", "~logger"],
)
def test_what_leaves_it_the_same_run_may_change(folder: Path, override: str) -> None:
    check_resumable(last(folder), assembled(override).module)


def test_another_vocabulary_is_refused(folder: Path) -> None:
    module = assembled().module
    module.recipe["tokenizer"] = module.recipe["tokenizer"] | {"tokenizer.json": "{}"}
    with pytest.raises(Changed, match=r"another tokenizer \(a vocabulary of (\d+), now \1\)"):
        check_resumable(last(folder), module)


@pytest.mark.parametrize("size", [2, 8])
def test_with_batches_of_another_size_a_run_goes_on_with_the_next_row(tmp_path: Path, size: int) -> None:
    """As on another number of devices: what was seen of the epoch stays seen, and its end is where it was."""
    common = "data.packing=true", "data.max_length=24", "data.train_size=64", "trainer.max_epochs=2"
    train(tmp_path, *common, "trainer.max_steps=4")
    state = torch.load(last(tmp_path), weights_only=True)
    rows = assembled(*common).data
    rows.setup("fit")
    total = len(rows.order("train").rows(0))
    train(tmp_path, *common, f"data.batch_size={size}", "trainer.max_steps=-1")
    progress = torch.load(last(tmp_path), weights_only=True)
    assert state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["completed"] == 4
    steps = progress["global_step"]
    left, whole = (total // size) - 4 * 4 // size, total // size
    assert steps == 4 + left + whole
    with (tmp_path / "csv" / "metrics.csv").open(newline="") as file:
        assert max(int(row["step"]) for row in csv.DictReader(file)) == steps - 1


def test_a_run_that_was_stopped_at_its_last_step_is_done_when_it_goes_on(folder: Path) -> None:
    """The note that it left then is not taken for one of today."""
    write_result(folder, {"status": "stopped", "signal": 2})
    assert train(folder) == pytest.approx(train(folder))
    assert read_result(folder)["status"] == "done" and read_result(folder)["steps"] == 4
