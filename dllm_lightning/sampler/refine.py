"""Rewrite what the network does not believe, until it believes everything that stands there.

The repaired form of a well-known loop from random tokens, which wrote the surest token of all places, found it still
the surest of all, and wrote it again for ever. Here only slots whose token the network disagrees with are rewritten.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from dllm_lightning.process import Denoiser, Process, Reading, UniformDiffusion
from dllm_lightning.sampler.checks import check_count, check_noise, check_pace
from dllm_lightning.sampler.choose import check_numbers, probability_of
from dllm_lightning.sampler.order import foremost
from dllm_lightning.sampler.past import Past
from dllm_lightning.sampler.proposal import Proposal
from dllm_lightning.sampler.sampler import Sampler
from dllm_lightning.types import Canvas, Step, Trajectory

PACE = 16
"""Calls in which every slot can be written once, when nothing else is said: quick, and corrections cost a few more."""


@dataclass(frozen=True)
class Refine(Sampler):
    """At each step, the tokens that are believed in least give way to the network's own, wherever these differ.

    With a greedy `proposal` its own is the most probable token, else a draw; a draw that keeps the token keeps the
    slot. Least believed is the lowest probability of the token that stands there; among equals the one further left.
    `steps` calls write every slot once (default 16), or `tokens_per_step` sets the pace; each row ends by itself, when
    nothing changes. `max_steps` ends what never settles; by default four times the calls that write every slot once.
    When greedy, no row comes back to a text that it has been before. Where all its changes together would lead back,
    it makes one that does not, and where there is none, it has settled.

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
    proposal: Proposal = field(default_factory=Proposal)
    noise: float = 0.2
    evidence: bool = False

    accepts: ClassVar[tuple[type[Process], ...]] = (UniformDiffusion,)

    def __post_init__(self) -> None:
        check_pace(self.steps, self.tokens_per_step)
        if self.max_steps is not None:
            check_count("max_steps", self.max_steps)
        check_noise(self.noise)
        self.proposal.check_unordered(type(self).__name__)

    def walk(
        self,
        denoiser: Denoiser,
        canvas: Canvas,
        generator: torch.Generator | None,
        x: Int[Tensor, "B L"],
        drafted: bool,
    ) -> Trajectory:
        process, (_, editable, segment) = denoiser.process, canvas
        slots = editable.sum(1)
        quota, past = self._quota(slots), Past(x)
        share = torch.full(slots.shape, self.noise if drafted else 1.0, dtype=torch.float64, device=x.device)
        t, at = _mean_time(process, share * slots, slots), editable
        limit, most = self._limit(slots, quota), slots
        for index in range(int(limit.amax())):
            at = at & (index < limit)[:, None]
            if not at.any():
                return
            asked = at
            reading = self._reading(process, x[at], share[:, None].expand(at.shape)[at], generator)
            x0, sure, here = denoiser.read(x, process.schedule.time_of(1 - share), segment, at, reading)
            check_numbers(sure.isnan().any())
            y = x.masked_scatter(at, x0)
            wrong = y != x
            doubt = torch.zeros(at.shape, device=at.device, dtype=here.dtype).masked_scatter_(at, -here)
            chosen = foremost(doubt, wrong, quota)
            if self.proposal.temperature == 0:
                one = foremost(doubt, wrong & ~past.holds_with(x, y), torch.ones_like(quota))
                chosen = torch.where(past.holds(torch.where(chosen, y, x)), one, chosen)
                past.add(torch.where(chosen, y, x))
            x = torch.where(chosen, y, x)
            at = editable & chosen.any(1, keepdim=True)  # a row in which nothing changed has settled
            left = torch.where(chosen.any(1), wrong.sum(1) - chosen.sum(1), 0)
            most = left if index == 0 else torch.minimum(left, most)
            share = most.clamp(min=1) / slots.clamp(min=1).double()
            sure = torch.zeros(at.shape, device=at.device).masked_scatter_(asked, sure)
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

    def _reading(
        self, process: Process, x_t: Int[Tensor, " N"], noise: Float[Tensor, " N"], generator: torch.Generator | None
    ) -> Reading:
        """For each slot: the network's token, the belief in it, and log of the belief in the token that stands there.

        What decides is the cavity's belief, or with `evidence` q(x_0 | x_t).
        """

        def reading(log_p_x0: Tensor, part: slice) -> tuple[Tensor, ...]:
            belief = self.proposal.belief(log_p_x0, process.vocab)
            if self.evidence:
                clean = torch.ones_like(noise[part])
                belief = process.posterior(belief.double().exp(), x_t[part], clean, 1 - noise[part]).log()
            x0 = self.proposal.draw(belief, generator)
            return x0, probability_of(x0, log_p_x0), belief.gather(1, x_t[part][:, None]).squeeze(1)

        return reading


def _mean_time(process: Process, noisy: Num[Tensor, " B"], slots: Int[Tensor, " B"]) -> float:
    """The time at which the schedule destroys the share of noisy slots in all rows together."""
    share = (noisy.sum() / slots.sum().clamp(min=1)).double()
    return process.schedule.time_of(1 - share[None]).item()
