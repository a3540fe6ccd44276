"""The figure of quality against cost: which settings are on the front, and what is drawn where."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from dllm_lightning.sweep import SweepReport, read
from dllm_lightning.sweep.front import draw_front, front
from tests.sweep.folders import leave_sweep
from tests.sweep.test_plot import lines

COSTS = {"calls": "network calls", "time": "seconds"}
GRID = {"sampler": ["confidence", "ancestral"], "sampler.steps": [2, 4, 8]}


def result(exact: float, calls: float, **more: float) -> dict[str, Any]:
    metrics = {
        "exact_match": exact,
        "exact_match_error": 0.01,
        "calls": calls,
        "time": calls / 100,
        "time_error": 0.001,
    }
    return {"status": "done", "metrics": metrics | more, "seconds": 2.0}


RESULTS = [result(0.5, 2), result(0.6, 4), result(0.9, 8), result(0.4, 2), result(0.7, 3.5), result(0.6, 7)]


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **o: (figures.append(self), save(self, *a, **o))[1])
    return figures


def test_the_front_is_what_no_other_beats() -> None:
    draw = random.Random(0)
    points = [(draw.randint(1, 9), float(draw.randint(1, 9))) for _ in range(60)]
    for mode, better in (("max", float.__gt__), ("min", float.__lt__)):
        chosen = front(points, mode)  # type: ignore[arg-type]
        beaten = [
            any(c <= cost and (better(m, value) or m == value) and (c < cost or m != value) for c, m in points)
            for cost, value in points
        ]
        assert {points[i] for i in chosen} == {point for point, worse in zip(points, beaten, strict=True) if not worse}
        assert [points[i][0] for i in chosen] == sorted({points[i][0] for i in chosen})


def test_a_line_for_each_part_along_the_number_and_a_panel_for_each_cost(tmp_path: Path, saved: list[Figure]) -> None:
    sweep = read(leave_sweep(tmp_path / "sweep", GRID, dict(enumerate(RESULTS))))
    assert draw_front(sweep, "exact_match", "max", COSTS, tmp_path / "sweep.png")
    left, right = saved[0].axes
    assert lines(left) == [[(2, 0.4), (3.5, 0.7), (7, 0.6)], [(2, 0.5), (4, 0.6), (8, 0.9)]]
    assert [left.get_xlabel(), right.get_xlabel(), left.get_ylabel()] == ["network calls", "seconds", "exact match"]
    assert left.get_xscale() == right.get_xscale() == "log"
    assert all(container.has_yerr for container in left.containers)
    assert [text.get_text() for text in saved[0].legends[0].get_texts()] == ["ancestral", "confidence", "Pareto front"]
    ringed = next(line for line in left.lines if line.get_markersize() > 10)
    assert list(zip(*ringed.get_data(), strict=True)) == [(2, 0.5), (3.5, 0.7), (8, 0.9)]
    assert [note.get_text() for note in left.texts] == ["2", "4", "8"]
    assert (tmp_path / "sweep.png").stat().st_size > 10_000 and not [*tmp_path.glob(".*")]


def test_a_line_is_called_by_what_tells_it_apart_and_many_lines_by_names_beside(
    tmp_path: Path, saved: list[Figure]
) -> None:
    """As sweeps with one name leave them: an order that a sampler always has says nothing."""
    few = {"sampler.steps": [2, 4]}
    for grid in (
        {"sampler": ["confidence"], "order": ["surest", "margin"], "pace": ["even"], **few},
        {"sampler": ["confidence"], "order": ["surest"], "pace": ["scheduled"], **few},
        {"sampler": ["p2"], "order": ["surest"], "pace": ["even"], **few},
    ):
        leave_sweep(tmp_path / "sweep", grid, dict(enumerate(RESULTS)))
    assert draw_front(read(tmp_path / "sweep"), "exact_match", "max", COSTS, tmp_path / "sweep.png")
    named = {text.get_text() for text in saved[0].legends[0].get_texts()}
    assert named == {
        "confidence, margin",
        "confidence, surest, even",
        "confidence, surest, scheduled",
        "p2",
        "Pareto front",
    }
    assert {line.get_alpha() for line in saved[0].axes[0].lines if line.get_marker() in "osD^"} == {1.0, None}
    for sampler in "abcdef":
        leave_sweep(tmp_path / "sweep", {"sampler": [sampler], **few}, dict(enumerate(RESULTS)))
    assert draw_front(read(tmp_path / "sweep"), "exact_match", "max", COSTS, tmp_path / "sweep.png")
    figure, legend = saved[1], saved[1].legends[0]
    inside, box = figure.bbox, legend.get_window_extent()
    assert inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
    assert all(box.x0 >= panel.get_window_extent().x1 for panel in figure.axes)
    alphas = [line.get_alpha() for line in figure.axes[0].lines]
    assert 0.4 in alphas and 1.0 in alphas  # those on the front stand out


def test_without_costs_to_show_the_usual_figure_is_drawn(tmp_path: Path, saved: list[Figure]) -> None:
    sweep = leave_sweep(tmp_path / "sweep", {"noise.max_ratio": [0.5, 0.8]})
    assert not draw_front(read(sweep), "val/nelbo", "min", COSTS, tmp_path / "sweep.png") and not saved
    SweepReport("val/nelbo", "min", costs=COSTS).report(sweep)
    assert len(saved) == 1 and (sweep / "sweep.png").is_file()


def test_the_report_of_a_sweep_with_costs_shows_them(tmp_path: Path, saved: list[Figure]) -> None:
    sweep = leave_sweep(tmp_path / "sweep", GRID, dict(enumerate(RESULTS)))
    SweepReport("exact_match", "max", costs=COSTS).report(sweep)
    assert len(saved) == 1 and len(saved[0].axes) == 2
