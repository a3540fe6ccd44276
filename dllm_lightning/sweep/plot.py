"""A sweep as one figure: the metric over what was swept, and a row below it for each metric beside it.

One number swept is a line. A second key becomes colours, further ones become panels. Where the values do not fill a
grid, as in a search, no line would be honest: then each key has a panel of dots. Seeds are never an axis unless
nothing else was swept; they are small dots around their mean.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dllm_lightning.sweep import axes
from dllm_lightning.sweep.results import SEED, Setting, Sweep, Value, in_order
from dllm_lightning.sweep.table import text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = 6  # more small multiples than these make no figure
STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.92",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 5.0,
}
MARKERS = "osD^vP*X"


class Panel(NamedTuple):
    """One column of the figure: the settings in it, the key along its axis, the key that colours it.

    `values` and `hues` are those of all panels, so that a colour means the same in each.
    """

    settings: list[Setting]
    x: str
    values: list[Value]
    line: bool = False
    colour: str | None = None
    hues: Sequence[Value | None] = (None,)
    title: str = ""


def draw(sweep: Sweep, metric: str, also: Sequence[str], file: Path) -> bool:
    """Draws the figure, whole or not at all. False where there is nothing to compare."""
    settings = sweep.settings
    if not sweep.keys or sum(len(setting.of(metric)) for setting in settings) < 2:
        return False
    import matplotlib
    from matplotlib.figure import Figure

    metrics = [metric, *(name for name in also if any(setting.of(name) for setting in settings))]
    panels = _panels(settings, sweep.setting_keys)
    with matplotlib.rc_context(STYLE):
        width = 4.6 if len(panels) == 1 else 2.9 * len(panels)
        figure = Figure(figsize=(width, 0.5 + 2.5 * len(metrics)), layout="constrained")
        grid = figure.subplots(len(metrics), len(panels), squeeze=False, sharex="col", sharey="row")
        for (row, name), (column, panel) in product(enumerate(metrics), enumerate(panels)):
            _fill(grid[row, column], panel, name)
            grid[row, column].set(xlabel=panel.x if row == len(metrics) - 1 else "", ylabel=name if column == 0 else "")
        for row, name in enumerate(metrics):
            axes.height(grid[row, 0], [value for setting in settings for value in setting.of(name)])
        for column, panel in enumerate(panels):
            grid[0, column].set_title(panel.title)
        if panels[0].colour is not None:
            handles, labels = grid[0, 0].get_legend_handles_labels()
            figure.legend(handles, labels, title=panels[0].colour, loc="outside right upper")
        shown = [setting for panel in panels for setting in panel.settings]
        figure.supxlabel(note(sweep, shown, metric), fontsize=7, color="0.4")
        figure.align_ylabels()
        aside = file.with_name(f".{file.name}.new")
        figure.savefig(aside, format="png", dpi=200)
    os.replace(aside, file)
    return True


def _panels(settings: list[Setting], keys: list[str]) -> list[Panel]:
    """Who is the axis, who the colour, and who the panels."""
    if not keys:
        single = [Setting({SEED: job.values[SEED]}, [job]) for setting in settings for job in setting.jobs]
        return [Panel(single, SEED, _values(single, SEED))]
    values = {key: _values(settings, key) for key in keys}
    x, *others = sorted(keys, key=lambda key: (axes.numeric(values[key]), len(values[key])), reverse=True)
    line = axes.numeric(values[x])
    if not others:
        return [Panel(settings, x, values[x], line)]
    colour, *rest = others
    combinations = list(product(*(values[key] for key in rest)))
    if 2 * len(settings) <= prod(map(len, values.values())) or len(combinations) > PANELS:
        return [Panel(settings, key, values[key]) for key in (x, *others)]
    panels = []
    for combination in combinations:
        chosen = dict(zip(rest, combination, strict=True))
        among = [setting for setting in settings if chosen.items() <= setting.values.items()]
        title = "\n".join(f"{key} = {text(value)}" for key, value in chosen.items())
        panels.append(Panel(among, x, values[x], line, colour, values[colour], title))
    return panels


def _fill(ax: Axes, panel: Panel, metric: str) -> None:
    """The settings of one panel, a line or a row of dots for each colour."""
    place = axes.along(ax, panel.values)
    seeds = any(len(setting.of(metric)) > 1 for setting in panel.settings)
    for number, (hue, colour) in enumerate(zip(panel.hues, axes.colours(panel.hues), strict=True)):
        among = [each for each in panel.settings if panel.colour is None or each.values[panel.colour] == hue]
        beside = 0.0 if panel.line else 0.16 * (number - (len(panel.hues) - 1) / 2)
        at = [place(setting.values[panel.x]) + beside for setting in among]
        means = [each.mean(metric) for each in among]  # a line has a gap where a job has no result
        bars = [each.spread(metric) if seeds else error_of(each, metric) for each in among]
        style: dict[str, Any] = {"color": colour, "marker": MARKERS[number % len(MARKERS)]}
        style |= {"linestyle": "-" if panel.line else "none", "label": "" if hue is None else text(hue)}
        ax.errorbar(at, means, yerr=bars, capsize=2, elinewidth=1, **style)
        for where, setting in zip(at, among, strict=True):
            if len(found := setting.of(metric)) > 1:
                ax.plot([where] * len(found), found, "o", color=colour, alpha=0.35, markersize=3.5, markeredgewidth=0)


def _values(settings: Sequence[Setting], key: str) -> list[Value]:
    return sorted({setting.values[key] for setting in settings}, key=lambda value: in_order([value]))


def error_of(setting: Setting, metric: str) -> float:
    """The spread over seeds; of a single run the standard error of its own metric, where it gives one."""
    if len(setting.of(metric)) > 1:
        return setting.spread(metric)
    return setting.mean(error) if setting.of(error := f"{metric}_error") else 0.0


def note(sweep: Sweep, settings: Sequence[Setting], metric: str) -> str:
    """What the bars are, and what is not shown."""
    shown = [setting for setting in settings if setting.of(metric)]
    seeds = sorted({len(setting.of(metric)) for setting in shown})
    parts = []
    if seeds[-1] > 1:
        parts.append(f"mean ± standard deviation over {' to '.join(map(str, [*seeds[:1], *seeds[1:][-1:]]))} seeds")
    elif any(error_of(setting, metric) for setting in shown):
        parts.append("± standard error of one run")
    if hidden := len(sweep.jobs) - sum(len(setting.of(metric)) for setting in sweep.settings):
        parts.append(f"without a result: {hidden} of {len(sweep.jobs)} jobs")
    return "; ".join(parts)
