"""What is good against what it costs, as one figure with the Pareto front: the settings that no other beats in both.

A number such as that of steps runs along a line, and what settings have in common, such as the sampler, has a line of
its own. There is a panel for each cost.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dllm_lightning.sweep import axes
from dllm_lightning.sweep.plot import MARKERS, STYLE, error_of, note
from dllm_lightning.sweep.results import Setting, Sweep, Value, in_order
from dllm_lightning.sweep.table import Mode, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANY = 7
"""Lines from which on their names stand beside the panels, and not above."""
FAINT = 0.4
"""How opaque a line is that is nowhere on the front, where there are many."""
NEAR, LINE = 20.0, 7.5
"""How wide and how high a name on the front is, in typographic points: names that would touch are stacked."""
NOTHING = "None"
"""What a setting has for a key that is swept by others alone."""


class Line(NamedTuple):
    """Settings that differ in one number alone, the `knob`, in its order. `label` says what they have in common."""

    label: str
    knob: str | None
    settings: list[Setting]


def draw_front(sweep: Sweep, metric: str, mode: Mode, costs: Mapping[str, str], file: Path) -> bool:
    """Draws the figure, whole or not at all; `costs` are metrics with the names of their axes.

    False where there are not two settings that have both the metric and a cost.
    """
    known = [cost for cost in costs if len(_with(sweep.settings, metric, cost)) > 1]
    if not known:
        return False
    import matplotlib
    from matplotlib.figure import Figure

    lines = _lines(sweep)
    with matplotlib.rc_context(STYLE):
        beside = len(lines) >= MANY
        figure = Figure(figsize=(0.9 + 3.1 * len(known) + 1.7 * beside, 3.3 + 0.5 * beside), layout="constrained")
        panels = figure.subplots(1, len(known), squeeze=False, sharey=True)[0]
        for ax, cost in zip(panels, known, strict=True):
            _fill(ax, lines, metric, mode, cost)
            ax.set_xlabel(costs[cost])
        panels[0].set_ylabel(metric.replace("_", " "))
        handles, labels = panels[0].get_legend_handles_labels()
        handles, labels = [*handles[1:], handles[0]], [*labels[1:], labels[0]]  # the front last
        columns = 1 if beside else min(len(labels), int(1.5 * len(known) + 1))
        figure.legend(handles, labels, loc="outside right upper" if beside else "outside upper center", ncols=columns)
        figure.supxlabel(_note(sweep, metric, lines), fontsize=7, color="0.4")
        aside = file.with_name(f".{file.name}.new")
        figure.savefig(aside, format="png", dpi=200)
    os.replace(aside, file)
    return True


def front(points: Sequence[tuple[float, float]], mode: Mode) -> list[int]:
    """The points (cost, metric) that no other beats: none is at least as good for at most the cost, and better in one.

    In the order of their costs; of equal points the first.
    """
    worth = -1.0 if mode == "max" else 1.0
    best, found = math.inf, []
    for place in sorted(range(len(points)), key=lambda i: (points[i][0], worth * points[i][1])):
        if worth * points[place][1] < best:
            best = worth * points[place][1]
            found.append(place)
    return found


def _fill(ax: Axes, lines: Sequence[Line], metric: str, mode: Mode, cost: str) -> None:
    """One panel: lines with error bars, and the front as a staircase behind them."""
    from matplotlib.transforms import Affine2D

    points: list[tuple[float, float]] = []
    names: list[tuple[str, Any, int]] = []
    colours = axes.colours([each.label for each in lines])
    among = [_with(line.settings, metric, cost) for line in lines]
    for number, (line, settings) in enumerate(zip(lines, among, strict=True)):
        points += [(each.mean(cost), each.mean(metric)) for each in settings]
        names += [(text(each.values[line.knob]) if line.knob else "", colours[number], number) for each in settings]
    chosen = front(points, mode)
    ahead = {names[i][2] for i in chosen}
    for number, (line, settings) in enumerate(zip(lines, among, strict=True)):
        x, y = [each.mean(cost) for each in settings], [each.mean(metric) for each in settings]
        bars: dict[str, Any] = {
            "xerr": [error_of(each, cost) for each in settings],
            "yerr": [error_of(each, metric) for each in settings],
        }
        style: dict[str, Any] = {"marker": MARKERS[number % len(MARKERS)], "label": line.label}
        style |= {"color": colours[number], "alpha": FAINT if len(lines) >= MANY and number not in ahead else 1.0}
        ax.errorbar(x, y, **bars, capsize=2, elinewidth=1, zorder=3 if number in ahead else 2.5, **style)
    if all(x > 0 for x, _ in points):
        ax.set_xscale("log")
        _plain_ticks(ax, [x for x, _ in points])
    x, y = [points[i][0] for i in chosen], [points[i][1] for i in chosen]
    right = ax.get_xlim()[1]
    ax.step(
        [*x, right], [*y, y[-1]], where="post", color="0.25", lw=0.9, ls=(0, (4, 2)), zorder=2, label="Pareto front"
    )
    ax.set_xlim(right=right)
    ax.plot(x, y, "o", ms=11, mfc="none", mec="0.25", mew=0.9, zorder=4)
    way, side, last, taken = (1, "bottom", -math.inf, 0.0) if mode == "max" else (-1, "top", -math.inf, 0.0)
    in_points = ax.transData - ax.figure.dpi_scale_trans + Affine2D().scale(72)  # by way of inches
    for i in chosen:
        name, colour, _ = names[i]
        across, up = (float(place) for place in in_points.transform(points[i]))
        start = way * up + 7
        if across - last < NEAR:
            start = max(start, taken + LINE)
        last, taken, offset = across, start, (-3, way * (start - way * up))
        ax.annotate(name, points[i], offset, textcoords="offset points", ha="right", va=side, fontsize=7, color=colour)


def _plain_ticks(ax: Axes, values: Sequence[float]) -> None:
    """Numbers as one writes them, not as powers of ten, where the axis is short."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if max(values) < 1000 * min(values):
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())


def _lines(sweep: Sweep) -> list[Line]:
    """The settings that share all words, one line each, along the number with the most values among them.

    Where other numbers differ as well, each combination of these has its own line. A key that a setting does not have,
    such as the threshold of a sampler without one, says nothing.
    """
    keys = sweep.setting_keys
    there = {key: [each.values[key] for each in sweep.settings if each.values[key] != NOTHING] for key in keys}
    numbers = [key for key in keys if there[key] and axes.numeric(there[key])]
    words = [key for key in keys if key not in numbers]
    families: dict[tuple[Value, ...], list[Setting]] = {}
    for setting in sweep.settings:
        families.setdefault(tuple(setting.values[key] for key in words), []).append(setting)
    return [line for said, family in families.items() for line in _along(family, _telling(said, [*families]), numbers)]


def _telling(said: tuple[Value, ...], every: Sequence[tuple[Value, ...]]) -> list[Value]:
    """The words of a family that those before them do not say already: an order that a sampler always has does not."""
    places = range(len(said))
    new = [len({other[i] for other in every if other[:i] == said[:i]}) > 1 or i == 0 for i in places]
    return [word for word, tells in zip(said, new, strict=True) if tells]


def _along(family: Sequence[Setting], words: Sequence[Value], numbers: Sequence[str]) -> list[Line]:
    different = {key: len({each.values[key] for each in family} - {NOTHING}) for key in numbers}
    knob = max((key for key in numbers if different[key] > 0), key=lambda key: different[key], default=None)
    fixed = [key for key in numbers if key != knob and different[key] > 1]
    found: dict[tuple[Value, ...], Line] = {}
    for setting in sorted(family, key=lambda setting: in_order([setting.values[key] for key in numbers])):
        others = tuple(setting.values[key] for key in fixed)
        label = ", ".join(text(value) for value in (*words, *others) if value != NOTHING) or "all"
        found.setdefault(others, Line(label, knob, [])).settings.append(setting)
    return [*found.values()]


def _with(settings: Sequence[Setting], metric: str, cost: str) -> list[Setting]:
    return [setting for setting in settings if setting.of(metric) and setting.of(cost)]


def _note(sweep: Sweep, metric: str, lines: Sequence[Line]) -> str:
    """What the rings, their numbers and the bars are."""
    rings = "ringed: no other setting is better for less"
    knobs = list(dict.fromkeys(line.knob for line in lines if line.knob))
    numbers = f"numbers: {knobs[0]}" if len(knobs) == 1 else "numbers: what runs along a line" if knobs else ""
    return "; ".join(filter(None, [rings, numbers, note(sweep, sweep.settings, metric)]))
