"""A run from end to end: what it leaves behind, how it goes on, and how it stops."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from dllm_lightning.loading import load
from dllm_lightning.resume import Changed
from dllm_lightning.train import main
from tests.conf.configurations import CONF, TINY, TINY_TOY, composed

TINY_RUN = (*TINY, *TINY_TOY, "experiment=quickstart", "trainer.log_every_n_steps=1", "callbacks.samples.score=4")
COMMAND = [sys.executable, "-m", "dllm_lightning.train", *TINY_RUN]
STEADY = "optimizer.decay=constant", "optimizer.warmup=0"
"""A learning rate that does not depend on where the run will end."""


def run(folder: Path, *overrides: str) -> float | None:
    cfg = composed(*TINY_RUN, "callbacks.progress=null", *overrides).copy()
    cfg.folder = str(folder)
    return main(cfg)


def column(folder: Path, name: str) -> dict[int, float]:
    """A curve from metrics.csv, by step; where a step comes twice, the later row counts."""
    with (folder / "csv" / "metrics.csv").open(newline="") as file:
        return {int(row["step"]): float(row[name]) for row in csv.DictReader(file) if row.get(name)}


def step_of(folder: Path) -> int:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]


def weights(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_a_run_leaves_its_model_its_curves_and_its_samples_and_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nelbo = run(tmp_path, "trainer.max_steps=5", "trainer.val_check_interval=2")
    assert nelbo is not None and 0 < nelbo < 20
    assert sorted(column(tmp_path, "train/loss")) == [0, 1, 2, 3, 4]
    assert column(tmp_path, "val/nelbo")[4] == pytest.approx(nelbo, rel=1e-6)
    assert len(column(tmp_path, "val/nelbo")) == len(column(tmp_path, "val/exact_match")) == 3
    assert (tmp_path / "samples.csv").read_text().count("\n") == 1 + 3
    assert {file.name for file in (tmp_path / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}
    shown = capsys.readouterr().out
    assert shown.count("done") == 1 and "5 steps in" in shown and f"{nelbo:.3f} ± " in shown
    assert load(tmp_path).config.seed == 0


def test_a_run_that_is_done_is_validated_and_trained_no_further(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nelbo = run(tmp_path, "trainer.max_steps=3")
    before = weights(tmp_path)
    assert run(tmp_path, "trainer.max_steps=3") == pytest.approx(nelbo, rel=1e-6)
    assert_close(weights(tmp_path), before, rtol=0, atol=0)
    assert f"Going on from {tmp_path}/checkpoints/last.ckpt" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options", [(), ("trainer.accumulate_grad_batches=2", "callbacks=ema")], ids=["plain", "averaged"]
)
def test_a_run_that_goes_on_takes_the_steps_of_one_that_never_stopped(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Eight batches an epoch: it stops in the middle of the first, and goes on into the third."""
    options = (*options, *STEADY, "callbacks.samples=null", "trainer.val_check_interval=100")
    run(tmp_path / "whole", *options, "trainer.max_steps=9")
    for steps in (3, 6, 9):
        run(tmp_path / "parts", *options, f"trainer.max_steps={steps}")
    whole, parts = (column(tmp_path / name, "train/loss") for name in ("whole", "parts"))
    assert len(whole) == 9
    assert parts == whole
    assert_close(weights(tmp_path / "parts"), weights(tmp_path / "whole"), rtol=0, atol=0)


def test_another_network_in_the_folder_is_refused_before_training(tmp_path: Path) -> None:
    run(tmp_path, "trainer.max_steps=1")
    with pytest.raises(Changed, match=r"backbone\.config\.intermediate_size=16 \(now 24\).*run=NAME; resume=null"):
        run(tmp_path, "trainer.max_steps=2", "backbone.config.intermediate_size=24")
    run(tmp_path, "trainer.max_steps=1", "backbone.config.intermediate_size=24", "resume=null")


def test_the_same_configuration_gives_the_same_run_and_another_seed_another(tmp_path: Path) -> None:
    short = "trainer.max_steps=3", "callbacks.samples=null"
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        torch.manual_seed(hash(name) % 1000)
        run(tmp_path / name, *short, f"seed={seed}")
    first, again, other = (column(tmp_path / name, "train/loss") for name in ("first", "again", "other"))
    assert first == again
    assert first != other


def test_mixed_precision_keeps_float32_weights(tmp_path: Path) -> None:
    run(tmp_path, "trainer.max_steps=2", "trainer.precision=bf16-mixed")
    assert {tensor.dtype for name, tensor in weights(tmp_path).items() if name.startswith("backbone")} == {
        torch.float32
    }


def test_two_gloo_processes_train_one_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Forked by Lightning. One summary, one folder, and the model is in the main process when they are done."""
    nelbo = run(tmp_path, "trainer=ddp_cpu", "trainer.max_steps=3", "trainer.val_check_interval=2", "data.batch_size=2")
    assert nelbo is not None
    assert step_of(tmp_path) == 3
    assert column(tmp_path, "val/nelbo")[2] == pytest.approx(nelbo, rel=1e-6)
    shown = capfd.readouterr().out
    assert shown.count("done") == 1 and "3 steps in" in shown


def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(CONF.parent), "HYDRA_FULL_ERROR": "1"}


@pytest.mark.slow
def test_ctrl_c_ends_a_run_politely_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """SIGINT while it trains: exit code 130, no traceback, a checkpoint, and the way on."""
    folder = tmp_path / "runs" / "quickstart"
    endless = [*COMMAND, *STEADY, "trainer.max_steps=100000", "trainer.val_check_interval=100000"]
    log = tmp_path / "log"
    with log.open("w") as out:
        process = subprocess.Popen(endless, cwd=tmp_path, env=environment(tmp_path), stdout=out, stderr=out)
        deadline = time.monotonic() + 240
        while not (folder / "csv" / "metrics.csv").is_file() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=900) == 130, log.read_text()
    said = log.read_text()
    assert "Stopping when this step is done and saved" in said
    assert "stopped" in said and "runs/quickstart/checkpoints/last.ckpt" in said
    assert "To go on, give the same command with run=quickstart" in said
    assert "Traceback" not in said
    step = step_of(folder)
    assert step > 0
    run(folder, *STEADY, f"trainer.max_steps={step + 2}")
    run(tmp_path / "whole", *STEADY, f"trainer.max_steps={step + 2}")
    whole, parts = (column(each, "train/loss") for each in (tmp_path / "whole", folder))
    assert len(whole) == step + 2
    assert parts == pytest.approx(whole, rel=1e-5)
