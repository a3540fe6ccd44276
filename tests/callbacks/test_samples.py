"""What the model says while it learns reaches every logger, the run's folder and the terminal."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from dllm_lightning.callbacks import SampleLogging
from dllm_lightning.loggers import wandb_logger
from dllm_lightning.sampler import Reveal
from tests.callbacks.parts import oracle, toy
from tests.model.parts import quiet

DATA = toy()
PROMPTS = DATA.prompts(2)


def logged(folder: Path, *, knows: int = 1, data: Any = DATA, logger: Any = False, **options: Any) -> dict[str, float]:
    """The metrics of one validation with this callback."""
    sampling = SampleLogging(Reveal(), data, **({"prompts": 2, "lengths": [4, 8], "score": 8} | options))
    trainer = quiet(folder, callbacks=[sampling], logger=logger)
    trainer.validate(oracle(data, knows), data, verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "samples.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_an_oracle_answers_every_question_and_half_an_oracle_half_of_them(tmp_path: Path) -> None:
    assert logged(tmp_path, prompts=0)["val/exact_match"] == 1.0
    told = {chat[-1]["content"]: n % 2 == 0 for n, (chat, _) in enumerate(DATA.prompts(1000))}
    right = [told[chat[-1]["content"]] for chat, _ in DATA.questions(8)]
    assert logged(tmp_path, prompts=0, knows=2)["val/exact_match"] == pytest.approx(sum(right) / 8)
    assert "val/exact_match" not in logged(tmp_path, prompts=0, score=0)
    assert not (tmp_path / "samples.csv").exists()


def test_the_grid_has_a_row_per_prompt_and_a_column_per_length(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In samples.csv, one validation below the other, and in the terminal."""
    for _ in range(2):
        logged(tmp_path)
    rows = table(tmp_path)
    assert len(rows) == 4
    for row, (messages, answer) in zip(rows, PROMPTS * 2, strict=True):
        assert list(row) == ["step", "prompt", "reference", "length 4", "length 8"]
        assert (row["step"], row["prompt"], row["reference"]) == ("0", messages[-1]["content"], answer)
        assert row["length 8"] == answer
    shown = capsys.readouterr().out
    assert shown.count("samples at step 0") == 2
    assert PROMPTS[0][0][-1]["content"].split()[0] in shown


def test_tensorboard_keeps_the_tables_as_text(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path, name="tensorboard", version="")
    logged(tmp_path, logger=logger)
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]}
    grid, moves = (texts[f"val/{name}/text_summary"] for name in ("samples", "trajectories"))
    assert f"| 0 | {PROMPTS[0][0][-1]['content']} | {PROMPTS[0][1]} |" in grid
    assert grid.splitlines()[1] == "| --- | --- | --- | --- | --- |"
    assert "________" not in moves and "_______" in moves  # from the first move, which leaves seven of eight masks


def test_csv_has_its_metrics_beside_the_samples(tmp_path: Path) -> None:
    logged(tmp_path, logger=CSVLogger(tmp_path, name="csv", version=""))
    with (tmp_path / "csv" / "metrics.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["val/exact_match"]) == 1.0
    assert len(table(tmp_path)) == 2


def test_wandb_keeps_tables_offline(tmp_path: Path) -> None:
    """WANDB_MODE is offline in all tests."""
    import wandb

    logged(tmp_path, logger=wandb_logger(str(tmp_path), project="test", name="test"))
    wandb.finish()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    tables = {file.name.split("_")[0]: json.loads(file.read_text()) for file in folder.rglob("*.table.json")}
    assert tables["samples"]["columns"] == ["step", "prompt", "reference", "length 4", "length 8"]
    assert tables["samples"]["data"][0][1:3] == [PROMPTS[0][0][-1]["content"], PROMPTS[0][1]]
    assert tables["trajectories"]["columns"] == ["step", "prompt", "move", "t", "text"]


def test_trajectories_keep_a_few_frames_and_always_the_last() -> None:
    """Eight moves in three frames: the first, every third, and the end, in which nothing is hidden."""
    sampling = SampleLogging(Reveal(), DATA, frames=3)
    model = oracle(DATA)
    from dllm_lightning.model.denoiser import NetworkDenoiser

    canvas = sampling._canvas([DATA.template.prompt(m, 8) for m, _ in PROMPTS], torch.device("cpu"))
    steps = list(sampling.sampler.trajectory(NetworkDenoiser(model.backbone, model.process), canvas))
    moves = sampling._trajectories(7, PROMPTS, canvas, steps)
    assert [row[2] for row in moves.rows] == [1, 4, 7, 8] * 2
    assert {row[0] for row in moves.rows} == {7}
    hidden = [row[4].count("_") for row in moves.rows]
    assert hidden == [7, 4, 1, 0] * 2
    assert moves.rows[3][4] == PROMPTS[0][1]


def test_every_second_validation_has_a_grid_and_each_is_scored(tmp_path: Path) -> None:
    sampling = SampleLogging(Reveal(), DATA, prompts=1, lengths=[4], score=4, every=2)
    trainer = quiet(
        tmp_path, callbacks=[sampling], max_steps=5, max_epochs=-1, val_check_interval=1, limit_val_batches=1
    )
    trainer.fit(oracle(DATA), DATA)
    assert [row["step"] for row in table(tmp_path)] == ["2", "4"]
    again = SampleLogging(Reveal(), DATA, every=2)
    again.load_state_dict(sampling.state_dict())
    assert again.validations == 5


def test_the_network_comes_back_in_the_mode_it_was_in(tmp_path: Path) -> None:
    model = oracle(DATA)
    sampling = SampleLogging(Reveal(), DATA, prompts=1, lengths=[2], score=0)
    trainer = quiet(tmp_path)
    for training in (True, False):
        model.backbone.train(training)
        sampling.on_validation_epoch_end(trainer, model)
        assert model.backbone.training is training


def test_prompts_too_long_for_the_network_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = sorted(len(DATA.template.prompt(m, 8).ids) for m, _ in DATA.prompts(6))
    model = oracle(DATA)
    monkeypatch.setattr(type(model.backbone), "longest", sizes[2])
    sampling = SampleLogging(Reveal(), DATA, prompts=6, lengths=[8], score=0)
    sampling.on_validation_epoch_end(quiet(tmp_path), model)
    assert len(table(tmp_path)) == sum(size <= sizes[2] for size in sizes)
    monkeypatch.setattr(type(model.backbone), "longest", 3)
    sampling.on_validation_epoch_end(quiet(tmp_path), model)  # nobody to ask


@pytest.mark.parametrize("option", [{"prompts": -1}, {"every": 0}, {"frames": 0}, {"score": -1}, {"lengths": [4, 0]}])
def test_counts_that_make_no_sense_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"callbacks\.samples has .*{next(iter(option))}="):
        SampleLogging(Reveal(), DATA, **option)
