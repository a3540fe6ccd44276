"""A sweep that is over leaves a table and a figure, names the jobs that are not done, and says how to go on."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from dllm_lightning.sweep import SweepReport
from dllm_lightning.sweep.names import SWEPT, job_name
from tests.conf.configurations import CONF
from tests.sweep.folders import failed, leave_sweep

GRID = {"noise.max_ratio": [0.5, 0.8], "seed": [0, 1]}


def ended(folder: Path, **options: object) -> None:
    config = OmegaConf.create({"run": "mine", "hydra": {"sweep": {"dir": str(folder)}}})
    SweepReport(**{"metric": "val/nelbo", "mode": "min", **options}).on_multirun_end(config)  # type: ignore[arg-type]


def test_a_sweep_leaves_a_table_and_a_figure_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended(leave_sweep(tmp_path, GRID))
    assert (tmp_path / "sweep.csv").is_file() and (tmp_path / "sweep.png").is_file()
    said = capsys.readouterr().out
    assert said.endswith(f"{tmp_path / 'sweep.csv'}\n{tmp_path / 'sweep.png'}\n")


def test_what_is_not_done_is_named_with_its_reason_and_the_way_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended(leave_sweep(tmp_path, GRID, {1: failed("The disk\nis full."), 2: None}))
    assert capsys.readouterr().out.splitlines()[-4:] == [
        "2 of 4 jobs did not get to their end:",
        "noise.max_ratio=0.5,seed=1: failed, The disk is full.",
        "noise.max_ratio=0.8,seed=0: missing",
        "To try these again, give the same command with run=mine",
    ]


def test_a_sweep_that_is_broken_off_reports_what_there_is_and_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(SWEPT, "")
    hydra = {"overrides": {"task": ["seed=0,1,2"]}, "sweeper": {"params": None}, "sweep": {"dir": str(tmp_path)}}
    SweepReport("val/nelbo", "min").on_multirun_start(OmegaConf.create({"run": "mine", "hydra": hydra}))
    leave_sweep(tmp_path, {"seed": [0, 1]})
    broken_off = SweepReport.interrupted
    assert broken_off is not None
    broken_off()
    assert (tmp_path / "sweep.png").is_file() and SweepReport.interrupted is None and SWEPT not in os.environ
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "The sweep was interrupted. To go on, give the same command with run=mine"
    assert not any("did not get" in line for line in said)


def test_a_sweep_in_which_nothing_was_done_has_a_table_and_no_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended(leave_sweep(tmp_path, GRID, dict.fromkeys(range(4))))
    assert (tmp_path / "sweep.csv").is_file() and not (tmp_path / "sweep.png").exists()
    assert "sweep.png" not in capsys.readouterr().out


def test_a_sweep_without_jobs_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended(tmp_path)
    assert not any(tmp_path.iterdir()) and capsys.readouterr().out == ""


def test_a_report_can_be_about_another_metric(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended(leave_sweep(tmp_path, GRID), metric="val/exact_match", mode="max")
    best = next(line.split() for line in capsys.readouterr().out.splitlines() if "★" in line)
    assert best[1:3] == ["0.8", "1"]


def test_a_mode_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="looks for the min or the max of its metric, and mode='least' is neither"):
        SweepReport("val/nelbo", "least")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("task", "params", "swept"),
    [
        (["a=1,2", "b=3"], None, "a"),
        (["a=1", "b=3"], None, ""),
        (["+a=range(3)", "b='x,y'", "c=[1,2]"], None, "a"),
        (["a=1,2"], {"b": "interval(0, 1)", "c": "tag(log, interval(1, 9))"}, "b,c,a"),
        (["b=3"], {"a": "1,2", "b": "3,4"}, "a"),
        (["noise=cosine,loglinear", "data.tasks=[copy],[sort]"], None, "noise,data.tasks"),
    ],
)
def test_before_a_sweep_its_keys_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: list[str], params: dict[str, str] | None, swept: str
) -> None:
    monkeypatch.setenv(SWEPT, "")
    monkeypatch.setattr(SweepReport, "interrupted", None)
    hydra = {"overrides": {"task": task}, "sweeper": {"params": params}, "sweep": {"dir": str(tmp_path / "none")}}
    SweepReport("val/nelbo", "min").on_multirun_start(OmegaConf.create({"hydra": hydra}))
    assert os.environ[SWEPT] == swept


def test_the_mask_ratio_experiment_sweeps_what_its_question_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    params = OmegaConf.load(CONF / "experiment" / "mask_ratio.yaml").hydra.sweeper.params
    parsed = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()])
    counts = {each.get_key_element(): len([*each.sweep_iterator()]) for each in parsed}
    assert counts == {"noise.min_ratio": 2, "noise.max_ratio": 3, "seed": 3}
    monkeypatch.setenv(SWEPT, ",".join(counts))
    assert job_name(["experiment=mask_ratio", "noise.min_ratio=0.05", "seed=1"], 0) == "noise.min_ratio=0.05,seed=1"


def test_importing_the_room_imports_nothing_heavy() -> None:
    code = "import sys, dllm_lightning.sweep; print(*{'torch', 'lightning', 'matplotlib', 'rich'} & sys.modules.keys())"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == ""


def test_drawing_warns_of_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ended(leave_sweep(tmp_path, GRID | {"noise": ["cosine", "loglinear"]}, {0: failed("no"), 1: failed("no")}))
    assert (tmp_path / "sweep.png").is_file()
