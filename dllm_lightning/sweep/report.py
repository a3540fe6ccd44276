"""What a sweep says when it is over: a table, a file, a figure, and which jobs did not get there.

Hydra calls `SweepReport` around a multirun. Before it, the swept keys are noted for the names of the jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from hydra.experimental.callback import Callback
from omegaconf import OmegaConf

from dllm_lightning.sweep.front import draw_front
from dllm_lightning.sweep.names import forget, remember, swept_keys
from dllm_lightning.sweep.plot import draw
from dllm_lightning.sweep.results import Sweep, read
from dllm_lightning.sweep.table import Mode, show, write_csv

if TYPE_CHECKING:
    from omegaconf import DictConfig


class SweepReport(Callback):
    """`metric` is what the sweep is about, better when smaller (`mode=min`) or larger; `also` stands beside it.

    Where there are `costs`, metrics with the names of their axes, the figure shows the metric against each of them.
    """

    interrupted: ClassVar[Callable[[], None] | None] = None
    """To call when the sweep that has begun is broken off: Hydra tells nobody then."""

    def __init__(
        self, metric: str, mode: Mode, also: Sequence[str] = (), costs: Mapping[str, str] | None = None
    ) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"A sweep looks for the min or the max of its metric, and mode={mode!r} is neither.")
        self.metric, self.mode, self.also, self.costs = metric, mode, also, costs or {}

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """What differs between jobs that are there already belongs to the names too: then one of them can be repeated
        alone, and finds its folder."""
        remember([*swept_keys(config), *read(Path(config.hydra.sweep.dir)).keys])
        SweepReport.interrupted = partial(self.on_interrupt, config)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        forget()
        SweepReport.interrupted = None
        if undone := self.report(Path(config.hydra.sweep.dir)).undone:
            print(f"To try {'it' if len(undone) == 1 else 'these'} again, give the same command with run={config.run}")

    def on_interrupt(self, config: DictConfig) -> None:
        """The same, of a sweep in which further jobs were to come."""
        forget()
        SweepReport.interrupted = None
        self.report(Path(config.hydra.sweep.dir))
        print(f"The sweep was interrupted. To go on, give the same command with run={config.run}")

    def report(self, folder: Path) -> Sweep:
        """Writes sweep.csv and sweep.png into the folder of a sweep, as far as it has come, and prints the rest."""
        sweep = read(folder)
        if sweep.jobs:
            write_csv(sweep, folder / "sweep.csv")
            show(sweep, self.metric, self.mode, self.also)
            file = folder / "sweep.png"
            drawn = draw_front(sweep, self.metric, self.mode, self.costs, file) or draw(
                sweep, self.metric, self.also, file
            )
            print(*(folder / name for name in ("sweep.csv", "sweep.png")[: 1 + drawn]), sep="\n")
        if sweep.undone:
            print(f"{len(sweep.undone)} of {len(sweep.jobs)} jobs did not get to their end:")
        for job in sweep.undone:
            print(f"{job.name}: {job.status}{f', {job.why}' if job.why else ''}")
        return sweep


def direction(mode: Mode) -> str:
    """The mode in Optuna's words: `${direction:${hydra.callbacks.report.mode}}`."""
    return f"{mode}imize"


OmegaConf.register_new_resolver(direction.__name__, direction, replace=True)
