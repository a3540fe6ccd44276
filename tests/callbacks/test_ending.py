"""How a run ends: the last step is validated and saved, and Ctrl-C is granted when the step at hand is done."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from dllm_lightning.callbacks import Ending, LastCheckpoint
from tests.model.parts import Data, canvas, documents, module, quiet

BATCHES = [canvas(documents(3, seed=seed)) for seed in range(8)]


class Watch(L.Callback):
    """Presses Ctrl-C at the start of a batch, `times` times; remembers the steps at which validation ran."""

    def __init__(self, press_at: int = -1, times: int = 1) -> None:
        self.press_at, self.times = press_at, times
        self.validated: list[int] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.press_at:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.validated.append(trainer.global_step)


def run(folder: Path, watch: Watch, **options: Any) -> tuple[L.Trainer, Ending]:
    ending = Ending()
    last = LastCheckpoint(str(folder / "checkpoints"))
    options = {"val_check_interval": 100, "check_val_every_n_epoch": None, "enable_checkpointing": True} | options
    trainer = quiet(folder, callbacks=[watch, ending, last], **options)
    with ending.listening(trainer):
        trainer.fit(module(), Data(BATCHES, validation=[canvas(documents(4))]))
    return trainer, ending


def saved(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.parametrize(
    ("options", "steps"),
    [({"max_steps": 5, "max_epochs": -1}, 5), ({"max_epochs": 1}, 8), ({"max_steps": 8, "max_epochs": -1}, 8)],
)
def test_the_last_step_is_validated_and_saved(tmp_path: Path, options: dict[str, Any], steps: int) -> None:
    """Though the next validation was due a hundred batches later."""
    watch = Watch()
    trainer, ending = run(tmp_path, watch, **options)
    assert watch.validated == [steps]
    assert saved(tmp_path)["global_step"] == trainer.global_step == steps
    assert not ending.stopped and not ending.asked


def test_the_last_step_is_not_validated_twice(tmp_path: Path) -> None:
    watch = Watch()
    run(tmp_path, watch, val_check_interval=4, max_epochs=1)
    assert watch.validated == [4, 8]


@pytest.mark.parametrize(("accumulate", "steps", "batches"), [(1, 3, 3), (2, 2, 4)])
def test_ctrl_c_finishes_the_step_at_hand_saves_it_and_stops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], accumulate: int, steps: int, batches: int
) -> None:
    """Pressed in the third batch: an accumulating step needs one more. Nobody waits for a validation."""
    watch = Watch(press_at=2)
    trainer, ending = run(tmp_path, watch, max_epochs=1, accumulate_grad_batches=accumulate)
    assert ending.asked and ending.stopped
    assert watch.validated == []
    assert saved(tmp_path)["global_step"] == trainer.global_step == steps
    progress = saved(tmp_path)["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]
    assert progress["processed"] == batches
    assert "Stopping when this step is done and saved" in capsys.readouterr().err


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path, Watch(press_at=2, times=2), max_epochs=1)
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning ignores it from here on


def test_before_training_and_after_it_ctrl_c_means_what_it_always_does(tmp_path: Path) -> None:
    before, ending = signal.getsignal(signal.SIGINT), Ending()
    with pytest.raises(KeyboardInterrupt), ending.listening(quiet(tmp_path)):
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert not ending.asked
