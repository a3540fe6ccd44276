"""Walk the corruption backwards, by the process's own posterior (MDLM, arXiv:2406.07524, section 3.2.3)."""

from __future__ import annotations

from dataclasses import dataclass

from dllm_lightning.noise import NoiseSchedule
from dllm_lightning.sampler.kappa import Posterior
from dllm_lightning.sampler.profile import Linear, Stride
from dllm_lightning.sampler.strides import Strides


@dataclass(frozen=True)
class Ancestral(Strides):
    """x_s ~ q(x_s | x_t, x_0) with x_0 averaged over the network's belief, along `steps` equal strides of time.

    Exact in the limit of many steps, for any process. The last stride ends in clean text whatever the schedule leaves
    at t = 0, so nothing stays hidden.
    """

    def way(self, schedule: NoiseSchedule, start: float) -> list[Stride]:
        return Linear().strides(schedule, self.steps, start, Posterior(), Posterior(), Posterior())
