"""Psi-samplers: walk back, and take some of the way back again (Duo, chapter II; for masks ReMDM, arXiv:2503.00307)."""

from __future__ import annotations

from dataclasses import dataclass, field

from dllm_lightning.noise import NoiseSchedule
from dllm_lightning.process import Process
from dllm_lightning.sampler.kappa import Constant, Kappa, Posterior
from dllm_lightning.sampler.profile import Linear, Profile, Stride
from dllm_lightning.sampler.strides import Strides


@dataclass(frozen=True)
class Psi(Strides):
    """x_s ~ kappa q(x_s | x_t, x_0) + (1 - kappa) q(x_s | x_0), each part of the way with its own kappa.

    Whatever kappa (but Conf), the distribution of a single slot stays at each time what the process has there: none is
    wrong, and each spends its calls otherwise. The further below 1, the more is reconsidered. With 1 throughout this
    is ancestral sampling, draw for draw. On masked text it is ReMDM, with sigma = (1 - kappa) (1 - alpha_s).
    """

    profile: Profile = field(default_factory=Linear)
    high: Kappa = field(default_factory=Posterior)
    middle: Kappa = field(default_factory=Posterior)
    low: Kappa = field(default_factory=Constant)

    def refuses(self, process: Process) -> str | None:
        for kappa in (self.high, self.middle, self.low):
            if not isinstance(process, kappa.accepts):
                return (
                    f"its kappa {type(kappa).__name__} goes by the tokens that are revealed, and under "
                    f"{type(process).__name__} none ever is, so choose Cap, Rescale, Fixed or Constant."
                )
        return None

    def way(self, schedule: NoiseSchedule, start: float) -> list[Stride]:
        return self.profile.strides(schedule, self.steps, start, self.high, self.middle, self.low)
