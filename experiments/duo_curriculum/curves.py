"""val/nelbo over the steps of each run, and the steps that each needs to reach where the one without curriculum ends.

python experiments/duo_curriculum/curves.py runs/sweeps/duo_curriculum runs/sweeps/duo_curriculum_hard
"""

from __future__ import annotations

import csv
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from omegaconf import OmegaConf

HERE = Path(__file__).parent
NAMES = {
    (0.0, 0.1): "no curriculum",
    (0.5, 0.0): "hard tokens, noise of the curriculum",
    (0.5, 0.1): "soft tokens (the curriculum)",
}
COLOURS = dict(zip(NAMES.values(), ("#444444", "#d08000", "#0072b2"), strict=True))
Curve = list[tuple[int, float]]


def main(folders: list[str]) -> None:
    curves: dict[tuple[str, int], Curve] = {}
    for file in sorted(metrics for folder in folders for metrics in Path(folder).glob("*/csv/metrics.csv")):
        config = OmegaConf.load(file.parents[1] / ".hydra" / "config.yaml")
        kind = float(config.model.curriculum), float(config.callbacks.temperature.first)
        curves[NAMES[kind], config.seed] = curve(file)
    with (HERE / "curves.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["way", "seed", "step", "val/nelbo"])
        writer.writerows([*which, *point] for which, points in curves.items() for point in points)
    draw(curves)
    for (way, seed), points in curves.items():
        goal = curves[NAMES[0.0, 0.1], seed][-1]
        needed = reached(points, goal[1])
        print(f"{way:<38} seed {seed}: ends at {points[-1][1]:.3f}, reaches {goal[1]:.3f} after {needed} steps", end="")
        print("" if needed is None else f", {goal[0] / needed:.2f} times as fast")


def curve(file: Path) -> Curve:
    with file.open(newline="") as rows:
        return [(int(row["step"]) + 1, float(row["val/nelbo"])) for row in csv.DictReader(rows) if row["val/nelbo"]]


def reached(points: Curve, goal: float) -> int | None:
    """The step at which a curve, straight between its points, first comes down to the goal."""
    for (a, above), (b, below) in pairwise(points):
        if below <= goal < above:
            return round(a + (b - a) * (above - goal) / (above - below))
    return None


def draw(curves: dict[tuple[str, int], Curve]) -> None:
    figure, axes = plt.subplots(figsize=(7.2, 4.2), dpi=150, layout="constrained")
    for (way, _), points in curves.items():
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, color=COLOURS[way], linewidth=1.3, alpha=0.85)
    for way, colour in COLOURS.items():
        axes.plot([], [], color=colour, label=way)
    axes.axvline(600, color="#bbbbbb", linewidth=0.8, linestyle="--")
    axes.annotate("end of the curriculum", (606, 0.52), color="#777777", fontsize=8)
    axes.set(xlabel="optimizer steps", ylabel="val/nelbo, nats per answer token", ylim=(0.5, 1.6), xlim=(90, 1210))
    axes.grid(color="#eeeeee")
    axes.legend(frameon=False, title="three seeds each")
    figure.savefig(HERE / "curves.png")


if __name__ == "__main__":
    main(sys.argv[1:])
