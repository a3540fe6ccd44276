"""The table has every job in it, from best to worst, and says what went wrong with the others."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from dllm_lightning.sweep import read
from dllm_lightning.sweep.table import MARK, Mode, best_first, best_settings_first, show, write_csv
from tests.sweep.folders import done, failed, leave_job, leave_sweep

GRID = {"noise.max_ratio": [0.5, 0.8], "seed": [0, 1]}


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def test_the_file_has_a_row_for_each_job_with_its_values_its_metrics_and_its_state(tmp_path: Path) -> None:
    leave_sweep(tmp_path, GRID, {1: failed('no memory, "again"'), 2: None})
    write_csv(read(tmp_path), tmp_path / "sweep.csv")
    found = rows(tmp_path / "sweep.csv")
    assert [*found[0]][:4] == ["job", "noise.max_ratio", "seed", "status"]
    assert [row["status"] for row in found] == ["done", "failed", "missing", "done"]
    assert [row["val/nelbo"] for row in found] == ["1.0", "", "", "4.0"]
    assert [row["noise.max_ratio"] for row in found] == ["0.5", "0.5", "0.8", "0.8"]
    assert found[1]["why"] == 'no memory, "again"' and found[0]["seconds"] == "61.2"
    assert all((tmp_path / row["job"]).is_dir() for row in found)


def test_a_file_that_could_not_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_csv(read(leave_sweep(tmp_path, GRID)), tmp_path / "sweep.csv")
    before = (tmp_path / "sweep.csv").read_text()
    leave_job(tmp_path, {"noise.max_ratio": 0.9, "seed": 0}, done(1.0))

    def stop(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("os.replace", stop)
    with pytest.raises(OSError, match="full"):
        write_csv(read(tmp_path), tmp_path / "sweep.csv")
    assert (tmp_path / "sweep.csv").read_text() == before


@pytest.mark.parametrize(("mode", "order"), [("min", [1.0, 2.0, 3.0]), ("max", [3.0, 2.0, 1.0])])
def test_the_best_job_stands_first_and_those_without_a_result_last(
    tmp_path: Path, mode: Mode, order: list[float]
) -> None:
    results = [done(2.0), failed("no"), done(math.nan), done(3.0), done(1.0), None]
    leave_sweep(tmp_path, {"seed": [*range(6)]}, dict(enumerate(results)))
    jobs = best_first(read(tmp_path).jobs, "val/nelbo", mode)
    assert [job.metrics["val/nelbo"] for job in jobs[:3]] == order
    assert {job.values["seed"] for job in jobs[3:]} == {1, 2, 5}


def test_a_job_that_was_stopped_is_not_the_best_however_well_it_stood(tmp_path: Path) -> None:
    leave_sweep(tmp_path, {"seed": [0, 1]}, {1: done(0.1) | {"status": "stopped"}})
    assert [job.status for job in best_first(read(tmp_path).jobs, "val/nelbo", "min")] == ["done", "stopped"]


def test_settings_are_ranked_by_their_mean_and_not_by_their_luckiest_seed(tmp_path: Path) -> None:
    results = [done(1.0), done(9.0), done(3.0), done(4.0)]  # means 5 and 3.5
    leave_sweep(tmp_path, GRID, dict(enumerate(results)))
    first, _ = best_settings_first(read(tmp_path), "val/nelbo", "min")
    assert first.values == {"noise.max_ratio": 0.8}


def test_the_terminal_shows_jobs_and_settings_and_marks_the_best_of_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show(read(leave_sweep(tmp_path, GRID, {3: failed("no")})), "val/nelbo", "min", ["val/exact_match", "nothing"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    marked = [line for line in lines if MARK in line]
    assert marked[0] == [MARK, "0.5", "0", "1.00", "±", "0.10", "0", "61", "done"]
    assert marked[1][:5] == [MARK, "0.5", "1.50", "±", "0.71"] and marked[1][-1] == "2"
    assert [line[-1] for line in lines if line and line[-1] in ("done", "failed")] == ["done"] * 3 + ["failed"]
    assert not any("nothing" in word for line in lines for word in line)


def test_without_seeds_there_are_no_settings_to_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(read(leave_sweep(tmp_path, {"data.tasks": ["[red]", "[name]"]})), "val/nelbo", "min")
    said = capsys.readouterr().out
    assert "over seeds" not in said and "[red]" in said and "[name]" in said


def test_nothing_is_marked_where_no_job_has_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(read(leave_sweep(tmp_path, GRID, dict.fromkeys(range(4)))), "val/nelbo", "min")
    assert MARK not in capsys.readouterr().out
