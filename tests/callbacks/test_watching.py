"""The bar, the speed and the summary: what a person sees of a run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar, TQDMProgressBar

from dllm_lightning.callbacks import Progress, Summary, TokensPerSecond
from dllm_lightning.callbacks import speed as speed_module
from tests.model.parts import Data, canvas, documents, module, packed, quiet

DOCUMENTS = documents(12)


@pytest.mark.parametrize(("terminal", "kind"), [(True, RichProgressBar), (False, TQDMProgressBar)])
def test_the_bar_shows_loss_bound_and_speed_under_short_names(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, kind: type
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    bar: Any = Progress(refresh_rate=5)
    assert isinstance(bar, kind)
    assert bar.refresh_rate == (5 if terminal else 100)
    metrics = {"val/nelbo": 2.0, "train/loss": 1.5, "train/tokens_per_second": 1234.6, "lr-AdamW": 1.0}
    trainer = SimpleNamespace(progress_bar_metrics=metrics, loggers=[])
    shown = bar.get_metrics(trainer, None)
    assert list(shown) == ["loss", "nelbo", "tokens/s"]
    assert shown["tokens/s"] == "1235"


def test_speed_counts_tokens_without_padding_over_whole_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first batch warms up. On two devices of 30 tokens in half a second each: 120 a second."""
    now, logged = [0.0], []
    monkeypatch.setattr(speed_module.time, "perf_counter", lambda: now[0])
    callback = TokensPerSecond(window=3)
    trainer: Any = SimpleNamespace(world_size=2)
    watched: Any = SimpleNamespace(log=lambda name, value, **_: logged.append((name, float(value))))
    batch: Any = SimpleNamespace(
        clean=SimpleNamespace(segment=torch.tensor([[0] * 5 + [1] * 20, [1] * 5 + [2] * 5 + [0] * 15]))
    )

    def walk(batches: int, seconds: float) -> None:
        for _ in range(batches):
            now[0] += seconds
            callback.on_train_batch_end(trainer, watched, None, batch, 0)

    callback.on_train_start(trainer, watched)
    walk(1, 9.0)
    assert logged == []
    walk(3, 0.5)
    assert {name for name, _ in logged} == {"train/tokens_per_second"}
    assert logged[-1][1] == pytest.approx(120.0)
    callback.on_validation_end(trainer, watched)
    now[0] += 100
    walk(4, 0.25)
    assert logged[-1][1] == pytest.approx(240.0)
    with pytest.raises(ValueError, match=r"callbacks\.speed\.window=0"):
        TokensPerSecond(window=0)


def test_speed_is_logged_by_a_real_run(tmp_path: Path) -> None:
    trainer = quiet(tmp_path, callbacks=[TokensPerSecond(window=2)])
    trainer.fit(module(), Data([packed(DOCUMENTS[:4]), canvas(DOCUMENTS[4:8]), packed(DOCUMENTS[8:])]))
    assert float(trainer.callback_metrics["train/tokens_per_second"]) > 0


def test_the_summary_says_what_came_out_and_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once after a fit, and once after a validation for its own sake."""
    monkeypatch.chdir(tmp_path)
    saving = ModelCheckpoint(tmp_path / "run" / "checkpoints", filename="best", monitor="val/nelbo")
    trainer = quiet(tmp_path / "run", callbacks=[Summary(), saving], enable_checkpointing=True)
    model, data = module(), Data([canvas(DOCUMENTS)], validation=[canvas(DOCUMENTS)])
    trainer.fit(model, data)
    shown = capsys.readouterr().out
    assert shown.count("done") == 1
    assert "1 steps in" in shown
    assert f"{float(trainer.callback_metrics['val/nelbo']):.3f} ± " in shown
    assert f"token frequencies alone score {float(trainer.callback_metrics['val/unigram_entropy']):.3f}" in shown
    assert " run/checkpoints/best.ckpt " in shown
    assert " python -m dllm_lightning.generate ckpt=run " in shown
    trainer.validate(model, data, verbose=False)
    assert capsys.readouterr().out.count("done") == 1
