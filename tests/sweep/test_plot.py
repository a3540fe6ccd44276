"""The figure shows every result where it belongs, and claims nothing that was not measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from dllm_lightning.sweep import axes, read
from dllm_lightning.sweep.plot import draw
from tests.sweep.folders import done, failed, leave_sweep

Drawn = Callable[..., Figure | None]

LR, RATIO, SEED = {"optimizer.lr": ["1e-4", "1e-3", "1e-2"]}, {"noise.max_ratio": [0.5, 0.8, 0.99]}, {"seed": [0, 1]}
PART, LOW = {"noise": ["cosine", "loglinear"]}, {"noise.min_ratio": [0.05, 0.15]}


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """Draws a sweep of this grid and gives the figure that was saved."""
    saved: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *arguments: Any, **options: Any) -> None:
        saved.append(self)
        save(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)

    def begin(grid: Mapping[str, list[Any]], but: Mapping[int, Any] | None = None, also: tuple[str, ...] = ()) -> Any:
        sweep = read(leave_sweep(tmp_path / "sweep", grid, but))
        file = tmp_path / "sweep" / "sweep.png"
        assert draw(sweep, "val/nelbo", also, file) == bool(saved) == file.is_file()
        assert not [*file.parent.glob(".*.new")]
        return saved[0] if saved else None

    return begin


def lines(ax: Any) -> list[list[tuple[float, float]]]:
    """The means of each line or row of dots, as points; not the dots of single seeds."""
    return [[(float(x), float(y)) for x, y in zip(*shown.lines[0].get_data(), strict=True)] for shown in ax.containers]


def test_a_number_is_a_line_over_its_values(drawn: Drawn) -> None:
    (ax,) = drawn(RATIO).axes
    assert lines(ax) == [[(0.5, 1.0), (0.8, 2.0), (0.99, 3.0)]]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_xscale()) == ("noise.max_ratio", "val/nelbo", "linear")
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0.5", "0.8", "0.99"]
    assert ax.containers[0].lines[0].get_linestyle() == "-"


def test_a_part_is_a_dot_above_its_name(drawn: Drawn) -> None:
    (ax,) = drawn(PART).axes
    assert lines(ax) == [[(0, 1.0), (1, 2.0)]] and ax.containers[0].lines[0].get_linestyle() == "None"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["cosine", "loglinear"]


def test_seeds_are_put_together_and_each_is_shown(drawn: Drawn) -> None:
    figure = drawn(RATIO | SEED)
    (ax,) = figure.axes
    assert lines(ax) == [[(0.5, 1.5), (0.8, 3.5), (0.99, 5.5)]]
    single = [y for line in ax.get_lines() if line.get_alpha() for y in line.get_ydata()]
    assert single == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    (bars,) = ax.containers[0].lines[2]
    assert bars.get_segments()[0][:, 1].tolist() == pytest.approx([1.5 - 0.5**0.5, 1.5 + 0.5**0.5])
    assert "mean ± standard deviation over 2 seeds" in figure._supxlabel.get_text()


def test_a_single_run_has_its_own_standard_error_and_says_so(drawn: Drawn) -> None:
    figure = drawn(RATIO)
    (bars,) = figure.axes[0].containers[0].lines[2]
    assert bars.get_segments()[0][:, 1].tolist() == pytest.approx([0.9, 1.1])
    assert figure._supxlabel.get_text() == "± standard error of one run"


def test_where_only_seeds_were_swept_each_is_a_dot_and_no_spread_is_claimed(drawn: Drawn) -> None:
    figure = drawn(SEED)
    assert lines(figure.axes[0]) == [[(0, 1.0), (1, 2.0)]]
    assert "deviation" not in figure._supxlabel.get_text()


def test_of_two_keys_the_one_with_more_values_is_the_axis_and_the_other_the_colour(drawn: Drawn) -> None:
    figure = drawn(LOW | RATIO)
    (ax,), (legend,) = figure.axes, figure.legends
    assert ax.get_xlabel() == "noise.max_ratio" and legend.get_title().get_text() == "noise.min_ratio"
    assert [text.get_text() for text in legend.get_texts()] == ["0.05", "0.15"]
    assert lines(ax) == [[(0.5, 1.0), (0.8, 2.0), (0.99, 3.0)], [(0.5, 4.0), (0.8, 5.0), (0.99, 6.0)]]
    assert len({shown.lines[0].get_color() for shown in ax.containers}) == 2


def test_a_number_is_the_axis_though_a_part_has_more_names(drawn: Drawn) -> None:
    figure = drawn({"loss": ["elbo", "masked_ce", "weighted_ce"]} | LOW)
    assert figure.axes[0].get_xlabel() == "noise.min_ratio"
    assert figure.legends[0].get_title().get_text() == "loss"


def test_two_parts_lie_side_by_side(drawn: Drawn) -> None:
    (ax,) = drawn({"loss": ["elbo", "masked_ce", "weighted_ce"]} | PART).axes
    places = [x for line in lines(ax) for x, _ in line]
    assert len({*places}) == 6 and sorted({round(x) for x in places}) == [0, 1, 2]


def test_a_third_key_makes_a_panel_for_each_of_its_values(drawn: Drawn) -> None:
    figure = drawn(LOW | RATIO | PART)
    assert [ax.get_title() for ax in figure.axes] == ["noise = cosine", "noise = loglinear"]
    assert [y for line in lines(figure.axes[1]) for _, y in line] == [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]


def test_a_colour_means_the_same_in_every_panel(tmp_path: Path, drawn: Drawn) -> None:
    """Though one of them has no job of the first colour."""
    leave_sweep(tmp_path / "sweep", {"noise": ["cosine"], "noise.min_ratio": [0.15], **RATIO})
    figure = drawn({"noise": ["loglinear"]} | LOW | RATIO)
    cosine, loglinear = ([shown.lines[0].get_color() for shown in ax.containers] for ax in figure.axes)
    assert cosine == loglinear and len({*cosine}) == 2
    assert [len(line) for line in lines(figure.axes[0])] == [0, 3]


def test_a_setting_with_a_single_seed_left_claims_no_spread(drawn: Drawn) -> None:
    (bars,) = drawn(RATIO | SEED, {1: failed("no")}).axes[0].containers[0].lines[2]
    low, high = bars.get_segments()[0][:, 1]
    assert low == high == 1.0


def test_values_that_fill_no_grid_are_joined_by_no_line(tmp_path: Path, drawn: Drawn) -> None:
    """As in a search: each key has its panel, and every job is a dot in each."""
    for number in range(4):
        leave_sweep(tmp_path / "sweep", {"optimizer.lr": [0.1 + number / 3], "noise.max_ratio": [0.9 - number / 7]})
    figure = drawn({"optimizer.lr": [0.05], "noise.max_ratio": [0.2]})
    assert sorted(ax.get_xlabel() for ax in figure.axes) == ["noise.max_ratio", "optimizer.lr"]
    assert all(ax.containers[0].lines[0].get_linestyle() == "None" for ax in figure.axes)
    assert [len(lines(ax)[0]) for ax in figure.axes] == [5, 5]


def test_another_metric_has_a_row_of_its_own_where_there_is_one(drawn: Drawn) -> None:
    figure = drawn(RATIO, also=("val/exact_match", "val/nothing"))
    assert [ax.get_ylabel() for ax in figure.axes] == ["val/nelbo", "val/exact_match"]
    assert lines(figure.axes[1]) == [[(0.5, 0.0), (0.8, 0.01), (0.99, 0.02)]]


def test_a_job_without_a_result_is_a_gap_and_is_counted(drawn: Drawn) -> None:
    figure = drawn(RATIO, {1: failed("no")})
    xs, ys = zip(*lines(figure.axes[0])[0], strict=True)
    assert xs == (0.5, 0.8, 0.99) and np.isnan(ys[1]) and (ys[0], ys[2]) == (1.0, 3.0)
    assert "without a result: 1 of 3 jobs" in figure._supxlabel.get_text()


@pytest.mark.parametrize("but", [{0: failed("no"), 1: None}, dict.fromkeys(range(3))])
def test_where_nothing_can_be_compared_nothing_is_drawn(drawn: Drawn, but: dict[int, Any]) -> None:
    assert drawn(RATIO, but) is None


def test_decades_are_logarithmic_along_and_up(drawn: Drawn) -> None:
    (ax,) = drawn(LR, {0: done(0.01), 2: done(5.0)}).axes
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


@pytest.mark.parametrize(
    ("values", "log"),
    [
        ([0.5, 0.8, 0.99], False),
        ([1e-4, 1e-2], True),
        ([1e-4, 3e-4, 1e-3], True),
        ([0.1, 0.5, 1.0], False),
        ([1, 2, 4, 8, 16], True),
        ([0, 10, 100], False),
        ([-1, 1, 1000], False),
    ],
)
def test_values_lie_on_the_axis_that_spaces_them_evenly(values: list[float], log: bool) -> None:
    assert axes.decades(values) is log


def test_the_figure_is_large_enough_to_print_and_not_empty(tmp_path: Path) -> None:
    sweep = read(leave_sweep(tmp_path, LOW | RATIO | SEED))
    assert draw(sweep, "val/nelbo", ["val/exact_match"], tmp_path / "sweep.png")
    with Image.open(tmp_path / "sweep.png") as image:
        assert image.width >= 900 and image.info["dpi"][0] == pytest.approx(200, abs=1)
        assert np.asarray(image.convert("L")).std() > 5
