"""What is shipped runs: each experiment takes a step, each trainer is one, and each job of a sweep has a folder."""

from __future__ import annotations

import csv
from pathlib import Path

import lightning as L
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from dllm_lightning.assemble import settled
from dllm_lightning.compatibility import IncompatibleParts, check_trainer
from tests.conf.configurations import TINY, TINY_TOY, Terminal, composed, files, names


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    (tmp_path / "here").mkdir()
    return Terminal(tmp_path / "here", monkeypatch, capsys)


def metrics(folder: Path) -> dict[str, str]:
    """The last value of each column of a run's metrics."""
    with (folder / "csv" / "metrics.csv").open() as file:
        return {name: value for row in csv.DictReader(file) for name, value in row.items() if value}


@pytest.mark.parametrize("name", names("experiment"))
def test_every_experiment_takes_a_step(name: str, terminal: Terminal, tmp_path: Path) -> None:
    """On its own data where that is made in memory, else on a small file."""
    in_memory = "path" not in composed(f"experiment={name}").data
    data = TINY_TOY if in_memory else files(tmp_path)
    if name == "distill_toy":  # it learns from another
        assert terminal("experiment=quickstart_duo", *TINY, *TINY_TOY).code == 0
    ran = terminal(f"experiment={name}", *TINY, *data, "run=one_step")
    assert ran.code == 0, ran.err
    run = terminal.folder / "runs" / "one_step"
    assert (run / "checkpoints" / "last.ckpt").is_file() and (run / ".hydra" / "overrides.yaml").is_file()
    assert 0 < float(metrics(run)["val/nelbo"]) < 20


def test_a_sweep_of_the_mask_ratio_gives_each_job_a_folder_of_its_own(terminal: Terminal) -> None:
    ran = terminal("-m", "noise.max_ratio=0.5,0.8,0.99", *TINY, *TINY_TOY, "run=sweep")
    assert ran.code == 0, ran.err
    sweep, ratios = terminal.folder / "runs" / "sweeps" / "sweep", (0.5, 0.8, 0.99)
    jobs = [sweep / f"noise.max_ratio={ratio}" for ratio in ratios]
    assert sorted(sweep.iterdir()) == sorted([*jobs, sweep / "multirun.yaml", sweep / "sweep.csv", sweep / "sweep.png"])
    for job, ratio in zip(jobs, ratios, strict=True):
        assert OmegaConf.load(job / ".hydra" / "config.yaml").noise.max_ratio == ratio
        assert "val/nelbo" in metrics(job) and (job / "checkpoints" / "last.ckpt").is_file()


def test_a_job_that_cannot_run_takes_no_other_with_it_and_is_named(terminal: Terminal) -> None:
    ran = terminal("-m", "noise.max_ratio=1.5,0.8", *TINY, *TINY_TOY, "run=sweep")
    assert ran.code == 2
    told = [line for line in ran.err.splitlines() if "ratio" in line]
    assert told[0].startswith("noise.min_ratio=0.0 and noise.max_ratio=1.5 do not bound")
    assert told[-1] == "1 of the jobs failed: noise.max_ratio=1.5."
    sweep = terminal.folder / "runs" / "sweeps" / "sweep"
    with (sweep / "sweep.csv").open(newline="") as file:
        rows = {row["noise.max_ratio"]: row for row in csv.DictReader(file)}
    assert rows["1.5"]["status"] == "failed" and rows["0.8"]["status"] == "done"
    assert [entry.name for entry in (sweep / "noise.max_ratio=1.5").iterdir() if entry.name != ".hydra"] == [
        "result.json"
    ]


def test_a_sweep_that_is_started_again_does_what_is_missing(terminal: Terminal) -> None:
    """What is done is not done again, and values that are added later join it."""
    common = (*TINY, *TINY_TOY, "run=sweep")
    assert terminal("-m", "noise.max_ratio=0.8,1.5", *common).code == 2
    done = terminal.folder / "runs" / "sweeps" / "sweep" / "noise.max_ratio=0.8" / "checkpoints" / "last.ckpt"
    before = done.stat().st_mtime_ns
    ran = terminal("-m", "noise.max_ratio=0.8,0.5", *common)
    assert ran.code == 0 and "Done already" in ran.out
    assert done.stat().st_mtime_ns == before
    with (done.parents[2] / "sweep.csv").open(newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)].count("done") == 2


@pytest.mark.parametrize("name", names("trainer"))
def test_every_trainer_is_one_where_its_devices_are(name: str) -> None:
    cfg = settled(composed(f"trainer={name}", "data=toy", "logger=csv"))
    gpu = torch.cuda.is_available()
    if cfg.trainer.accelerator == "gpu" and not gpu:
        with pytest.raises(IncompatibleParts, match=r"accelerator=gpu needs a GPU.* Use trainer=cpu"):
            check_trainer(cfg.trainer, cfg.callbacks)
        return
    check_trainer(cfg.trainer, cfg.callbacks)
    cfg.trainer.default_root_dir = None
    trainer = instantiate(cfg.trainer)(logger=False)
    assert isinstance(trainer, L.Trainer)
    assert gpu or trainer.num_devices == cfg.trainer.devices


def test_sharding_and_an_average_of_the_weights_are_not_taken_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    cfg = composed("trainer=fsdp", "callbacks=ema")
    with pytest.raises(IncompatibleParts, match="callbacks=ema copies the model, and trainer=fsdp shards it"):
        check_trainer(cfg.trainer, cfg.callbacks)


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        (("--help",), "Choose a part with group=option"),
        (("--hydra-help",), "--multirun"),
        (("--version",), "Hydra"),
        (("--info", "defaults-tree"), "experiment"),
        (("--cfg", "job"), "_target_: dllm_lightning.loss.WeightedCE"),
        (("--cfg", "job", "--package", "optimizer"), "lr: "),
        (("--cfg", "hydra"), "dir: runs/"),
        (("--cfg", "job", "experiment=mdm_original"), "max_ratio: 0.99"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_hydras_own_questions_are_answered_and_leave_nothing_behind(
    terminal: Terminal, flags: tuple[str, ...], shown: str
) -> None:
    ran = terminal(*flags)
    assert ran.code == 0 and shown in ran.out and ran.err == ""
    assert not any(terminal.folder.iterdir())
