"""One noise, many times: where the largest of K noisy numbers lies, while the same noise is turned up."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from dllm_lightning.process.draws import Draws
from dllm_lightning.process.relaxation import Relaxed
from dllm_lightning.process.soft import SoftCorruption
from dllm_lightning.process.uniform import UniformDiffusion
from dllm_lightning.types import Canvas, Corrupted


@dataclass(frozen=True)
class GaussianTrajectory:
    """x_t = argmax(alpha_tilde_t e_x + sigma_tilde_t epsilon), with one epsilon for all t (Duo, section 4.2).

    The deterministic path that consistency distillation wants, which no path of the discrete process is: from x to
    the place of the largest epsilon, crossing over once. At each time by itself it is uniform noise with
    alpha = T(gamma_t). Of the K - 1 other numbers only the largest can win, and it is the largest at all times; so two
    numbers and a token are drawn for each slot, and not K.

    The same draws, begun anew, are the same noise: `at(canvas, s, draws)` with a second `PerPlace` of the same place
    lies on the trajectory of `at(canvas, t, draws)`.

    Raises TypeError for a process whose schedule is not `Relaxed`, and ValueError for one over other classes.
    """

    process: UniformDiffusion

    def __post_init__(self) -> None:
        SoftCorruption(self.process, top_k=1)  # says what it cannot do

    @classmethod
    def between(cls, process: UniformDiffusion, alpha: tuple[float, float]) -> GaussianTrajectory:
        """The process on a clock in which gamma rises evenly, while the share of surviving tokens falls between two."""
        schedule = Relaxed(1 - max(alpha), 1 - min(alpha), classes=process.count)
        return cls(dataclasses.replace(process, schedule=schedule))

    def at(self, canvas: Canvas, t: Float[Tensor, "B L"], draws: Draws) -> Corrupted:
        """Where the draws lead at t, slot by slot; all but the editable states come back bit for bit."""
        return SoftCorruption(self.process, top_k=1).corrupt(canvas, t, draws, tau=0.0)
