"""Rewrite what the network does not believe, until it believes everything that stands there.

The repaired form of a well-known loop from random tokens, which wrote the surest token of all places, found it still
the surest of all, and wrote it again for ever. Here only slots whose token the network disagrees with are rewritten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from dllm_lightning.process import Denoiser, Process, UniformDiffusion
from dllm_lightning.sampler.checks import check_count, check_noise, check_pace, check_temperature
from dllm_lightning.sampler.choose import categorical, probability_of
from dllm_lightning.sampler.order import foremost
from dllm_lightning.sampler.past import Past
from dllm_lightning.sampler.sampler import Sampler, beginning
from dllm_lightning.types import Canvas, Step, Trajectory

PACE = 16
"""Calls in which every slot can be written once, when nothing else is said: quick, and corrections cost a few more."""


@dataclass(frozen=True)
class Refine(Sampler):
    """At each step, the tokens that are believed in least give way to the network's own, wherever these differ.

    At temperature 0 its own is the most probable token, above it a draw; a draw that keeps the token keeps the slot.
    Least believed is the lowest probability of the token that stands there; among equals the one further left.
    `steps` calls write every slot once (default 16), or `tokens_per_step` sets the pace; each row ends by itself, when
    nothing changes. `max_steps` ends what never settles; by default four times the calls that write every slot once.
    At temperature 0 no row comes back to a text that it has been before. Where all its changes together would lead
    back, it makes one that does not, and where there is none, it has settled.

    The network is told how much is noise: all of it in the beginning, `noise` in a draft, and then the share of a
    row's slots that it disagreed with in the call before and that were not rewritten since, one slot at the least. For
    what the network would not have written is what a random token is here. After the first call the share only falls:
    who is told of more noise trusts the text less, disagrees with more of it, and would be told of more still.

    The belief in a slot is the cavity's, from all others alone. With `evidence` the token that stands there counts as
    well, as it does in the posterior: in a draft with few mistakes it is right more often than the network's guess.

    Raises ValueError for two paces at once, and for numbers without sense.
    """

    steps: int | None = None
    tokens_per_step: int | None = None
    max_steps: int | None = None
    temperature: float = 0.0
    noise: float = 0.2
    evidence: bool = False

    accepts: ClassVar[tuple[type[Process], ...]] = (UniformDiffusion,)

    def __post_init__(self) -> None:
        check_pace(self.steps, self.tokens_per_step)
        if self.max_steps is not None:
            check_count("max_steps", self.max_steps)
        check_temperature(self.temperature)
        check_noise(self.noise)

    def walk(
        self,
        denoiser: Denoiser,
        canvas: Canvas,
        generator: torch.Generator | None,
        draft: Int[Tensor, "B L"] | None,
    ) -> Trajectory:
        process, (_, editable, segment) = denoiser.process, canvas
        x = beginning(process, canvas, generator, draft)
        slots = editable.sum(1)
        quota, past = self._quota(slots), Past(x)
        share = torch.full(slots.shape, 1.0 if draft is None else self.noise, dtype=torch.float64, device=x.device)
        t, at = _mean_time(process, share * slots, slots), editable
        limit, most = self._limit(slots, quota), slots
        for index in range(int(limit.amax())):
            at = at & (index < limit)[:, None]
            if not at.any():
                return
            asked = at
            log_p_x0 = denoiser(x, process.schedule.time_of(1 - share), segment, at)
            belief = self._belief(process, log_p_x0, x[at], share[:, None].expand(at.shape)[at])
            x0 = categorical(belief, self.temperature, generator)
            y = x.masked_scatter(at, x0)
            wrong = y != x
            here = belief.gather(1, x[at][:, None]).squeeze(1)
            doubt = torch.full(at.shape, -torch.inf, device=at.device, dtype=here.dtype).masked_scatter_(at, -here)
            chosen = foremost(doubt[wrong], wrong, quota)
            if self.temperature == 0:
                fresh = wrong & ~past.holds_with(x, y)
                one = foremost(doubt[fresh], fresh, torch.ones_like(quota))
                chosen = torch.where(past.holds(torch.where(chosen, y, x)), one, chosen)
                past.add(torch.where(chosen, y, x))
            x = torch.where(chosen, y, x)
            at = editable & chosen.any(1, keepdim=True)  # a row in which nothing changed has settled
            left = torch.where(chosen.any(1), wrong.sum(1) - chosen.sum(1), 0)
            most = left if index == 0 else torch.minimum(left, most)
            share = most.clamp(min=1) / slots.clamp(min=1).double()
            sure = torch.zeros(at.shape, device=at.device).masked_scatter_(asked, probability_of(x0, log_p_x0))
            before, t = t, _mean_time(process, most, slots)
            yield Step(index, before, t, x, chosen, torch.where(chosen, sure, 0.0))

    def _quota(self, slots: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """How many of a row's slots one step may rewrite."""
        if self.tokens_per_step is not None:
            return torch.full_like(slots, self.tokens_per_step)
        return (slots / (self.steps or PACE)).ceil().long()

    def _limit(self, slots: Int[Tensor, " B"], quota: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """The most steps there will be."""
        calls = (slots / quota.clamp(min=1)).ceil().long()
        return 4 * calls if self.max_steps is None else torch.full_like(calls, self.max_steps)

    def _belief(
        self, process: Process, log_p_x0: Float[Tensor, "N K"], x_t: Int[Tensor, " N"], noise: Float[Tensor, " N"]
    ) -> Float[Tensor, "N K"]:
        """log of the belief that decides: the cavity's, or with the evidence of the token itself, q(x_0 | x_t)."""
        if not self.evidence:
            return log_p_x0
        return process.posterior(log_p_x0.double().exp(), x_t, torch.ones_like(noise), 1 - noise).log()


def _mean_time(process: Process, noisy: Num[Tensor, " B"], slots: Int[Tensor, " B"]) -> float:
    """The time at which the schedule destroys the share of noisy slots in all rows together."""
    share = (noisy.sum() / slots.sum().clamp(min=1)).double()
    return process.schedule.time_of(1 - share[None]).item()
