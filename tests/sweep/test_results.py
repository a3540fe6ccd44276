"""A sweep is what its folder says, however much of it there is."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from dllm_lightning.sweep import read
from tests.sweep.folders import done, failed, leave_job, leave_sweep

GRID = {"noise": ["cosine", "loglinear"], "optimizer.lr": ["1e-3", "2e-3"], "seed": [0, 1, 2]}


def test_what_was_swept_is_what_differs_between_the_jobs(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        leave_job(tmp_path, {"trainer.max_steps": 5, "optimizer.lr": lr}, done(1.0))
    sweep = read(tmp_path)
    assert sweep.keys == ["optimizer.lr"]
    assert [job.values for job in sweep.jobs] == [{"optimizer.lr": 0.1}, {"optimizer.lr": 0.2}]


def test_every_job_is_found_with_its_values_and_its_result(tmp_path: Path) -> None:
    sweep = read(leave_sweep(tmp_path, GRID))
    assert sweep.keys == [*GRID] and len(sweep.jobs) == 12 and not sweep.undone
    first = sweep.jobs[0]
    assert first.values == {"noise": "cosine", "optimizer.lr": 0.001, "seed": 0}
    assert (first.name, first.status, first.steps, first.seconds) == (first.folder.name, "done", 6, 61.2)
    assert first.metrics == {"val/nelbo": 1.0, "val/nelbo_error": 0.1, "val/exact_match": 0.0}


def test_numbers_lie_in_their_order_and_not_in_that_of_their_letters(tmp_path: Path) -> None:
    leave_sweep(tmp_path, {"data.batch_size": [128, 8, 64]})
    assert [job.values["data.batch_size"] for job in read(tmp_path).jobs] == [8, 64, 128]


@pytest.mark.parametrize(
    "result",
    [
        None,
        "",
        '{"status": "done", "metr',
        "[1, 2]",
        '{"status": "running"}',
        '{"metrics": {"val/nelbo": 1}}',
        '{"status": ["done"]}',
    ],
)
def test_a_job_without_a_whole_result_is_missing_and_hides_no_other(tmp_path: Path, result: str | None) -> None:
    leave_sweep(tmp_path, {"seed": [0, 1, 2]}, {1: result})
    sweep = read(tmp_path)
    assert [job.status for job in sweep.jobs] == ["done", "missing", "done"]
    assert [job.values["seed"] for job in sweep.undone] == [1]


def test_what_is_no_number_is_no_metric(tmp_path: Path) -> None:
    odd = {"status": "done", "metrics": {"a": 1, "b": None, "c": "2", "d": True, "e": [1]}, "seconds": "long"}
    job = leave_job(tmp_path, {"seed": 0}, odd)
    (read_job,) = read(job.parent).jobs
    assert read_job.metrics == {"a": 1.0} and read_job.seconds is None and read_job.steps is None


@pytest.mark.parametrize("notes", ["", "- a=[1", "a: 1\n", "- =\n", "\x00", "- [1, 2]\n- a: 3\n"])
def test_a_folder_with_unreadable_notes_is_no_job(tmp_path: Path, notes: str) -> None:
    leave_sweep(tmp_path, {"seed": [0, 1]})
    (tmp_path / "half" / ".hydra").mkdir(parents=True)
    (tmp_path / "half" / ".hydra" / "overrides.yaml").write_text(notes)
    sweep = read(tmp_path)
    assert [job.values for job in sweep.jobs if job.name != "half"] == [{"seed": 0}, {"seed": 1}]
    assert sweep.keys == ["seed"]


def test_where_there_is_no_sweep_there_are_no_jobs(tmp_path: Path) -> None:
    assert read(tmp_path).jobs == [] and read(tmp_path / "nowhere").jobs == []


def test_a_sweep_that_was_given_another_key_later_knows_what_the_earlier_jobs_had(tmp_path: Path) -> None:
    """A number from the configuration of the job, and a part from its choices."""
    old = leave_job(tmp_path, {"seed": 0}, done(1.0))
    (old / ".hydra" / "config.yaml").write_text("optimizer: {lr: 0.1}\nnoise: {_target_: x.Cosine}\n")
    (old / ".hydra" / "hydra.yaml").write_text("hydra: {runtime: {choices: {noise: cosine}}}\n")
    leave_job(tmp_path, {"seed": 0, "optimizer.lr": 0.2, "noise": "loglinear"}, done(2.0))
    sweep = read(tmp_path)
    assert sweep.keys == ["optimizer.lr", "noise"]
    assert [[*job.values.values()] for job in sweep.jobs] == [[0.1, "cosine"], [0.2, "loglinear"]]


def test_a_setting_is_the_mean_of_its_seeds_that_are_done(tmp_path: Path) -> None:
    leave_sweep(tmp_path, {"optimizer.lr": [0.1, 0.2], "seed": [0, 1, 2]}, {1: done(4.0), 5: failed("no")})
    low, high = read(tmp_path).settings
    assert low.values == {"optimizer.lr": 0.1} and low.of("val/nelbo") == [1.0, 4.0, 3.0]
    assert low.mean("val/nelbo") == pytest.approx(8 / 3)
    assert low.spread("val/nelbo") == pytest.approx(math.sqrt(7 / 3))  # squares around 8/3 sum to 14/3, over 3 - 1
    assert high.of("val/nelbo") == [4.0, 5.0] and high.mean("val/nelbo") == 4.5


def test_a_metric_that_is_not_finite_counts_as_none(tmp_path: Path) -> None:
    leave_sweep(tmp_path, {"optimizer.lr": [0.1, 0.2], "seed": [0, 1]}, {0: done(math.nan), 1: done(math.inf)})
    low, high = read(tmp_path).settings
    assert low.of("val/nelbo") == [] and math.isnan(low.mean("val/nelbo")) and high.mean("val/nelbo") == 3.5
