"""Uniform-state diffusion: text is destroyed by replacing it with random tokens (UDLM, arXiv:2412.10193; Duo,
arXiv:2506.10892)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_lightning.noise import LogLinear
from dllm_lightning.process.draws import Draws
from dllm_lightning.process.process import Process, attentive
from dllm_lightning.process.rate import rate
from dllm_lightning.process.rate_function import Rate
from dllm_lightning.types import Canvas, Corrupted, Slots


@dataclass(frozen=True)
class UniformDiffusion(Process):
    """q(x_t | x_0) = alpha x_0 + (1 - alpha) / K, slot by slot, over K states; any slot may change at any time.

    The states are the tokens that text is made of: `vocab.noise_ids` and the token that ends an answer. No mask, no
    padding, no row that no token belongs to. A slot whose clean token is no state ([UNK], say) is left alone.

    What a network predicts here is the *cavity* belief: what the clean token is, given every slot but its own. The
    evidence of the slot's own state is multiplied in by `posterior`.
    """

    @cached_property
    def states(self) -> Int[Tensor, " V"]:
        """The ids of the K states, ascending."""
        return torch.unique(torch.cat([self.vocab.noise_ids, torch.tensor([self.vocab.eos_id])]))

    @property
    def count(self) -> int:
        """K of every formula here: the number of states. (The width of the logits may be larger.)"""
        return len(self.states)

    @cached_property
    def never(self) -> Int[Tensor, " U"]:
        """The ids that are no states."""
        is_state = torch.zeros(self.vocab.size, dtype=torch.bool)
        is_state[self.states] = True
        return (~is_state).nonzero().squeeze(1)

    def prior(self, canvas: Canvas, generator: torch.Generator | None = None) -> Int[Tensor, "B L"]:
        """Every editable slot is a random state."""
        place = canvas.ids.device
        drawn = torch.randint(self.count, canvas.ids.shape, generator=generator, device=place)
        return torch.where(canvas.editable, self.states.to(place)[drawn], canvas.ids)

    def noised(self, canvas: Canvas, t: Float[Tensor, "B L"], draws: Draws) -> Corrupted:
        """Replaces each slot with probability 1 - alpha by any state, its own included."""
        asked = canvas.editable & self.is_state(canvas.ids)
        replaced = asked & (draws.uniform(canvas) < self.schedule.mask_ratio(t))
        drawn = self.states.to(canvas.ids)[(draws.uniform(canvas).double() * self.count).long()]
        return Corrupted(canvas, torch.where(replaced, drawn, canvas.ids), t, asked)

    def is_state(self, ids: Int[Tensor, "*n"]) -> Bool[Tensor, "*n"]:
        return self.rank(ids) >= 0

    def rank(self, ids: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
        """The number of each id among the states, from 0; -1 for what is no state."""
        return self._ranks.to(ids.device)[ids]

    @cached_property
    def _ranks(self) -> Int[Tensor, " K"]:
        ranks = torch.full((self.vocab.size,), -1)
        ranks[self.states] = torch.arange(self.count)
        return ranks

    def asks(self, x_t: Int[Tensor, "B L"], editable: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
        """All of them: no token is ever certain."""
        return editable

    def posterior(
        self,
        p_x0: Float[Tensor, "N K"],
        x_t: Int[Tensor, " N"],
        alpha_s: Float[Tensor, " N"],
        alpha_t: Float[Tensor, " N"],
    ) -> Float[Tensor, "N K"]:
        """Likelihood of x_t from each x_s, times the marginal at s: Bayes, with x_0 averaged over the belief.

        Duo (arXiv:2506.10892), equation 5, where the belief takes the place of x_0 in numerator and denominator alike.
        """
        pi = self.stationary.to(p_x0)
        alpha_s, alpha_t = alpha_s.to(p_x0)[:, None], alpha_t.to(p_x0)[:, None]
        survive = alpha_t / alpha_s  # alpha_s > alpha_t >= 0
        marginal = alpha_s * p_x0 + (1 - alpha_s) * pi
        joint = (1 - survive) / self.count * marginal
        joint.scatter_add_(1, x_t[:, None], survive * marginal.gather(1, x_t[:, None]))
        return joint / joint.sum(-1, keepdim=True)

    @cached_property
    def stationary(self) -> Float[Tensor, " K"]:
        pi = torch.zeros(self.vocab.size, dtype=torch.float64)
        pi[self.states] = 1.0 / self.count
        return pi

    def mask_ratio(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return self.schedule.mask_ratio(t)

    def nelbo(self, log_p_x0: Float[Tensor, "N K"], slots: Slots) -> Float[Tensor, " N"]:
        """The rate at which the two posteriors diverge (Duo, equation 8, where its code has the closed form).

        -alpha' / (K alpha) · sum_j r_j (y_j - log(1 + y_j)), over the states j, with the ratios
        r_j = q(j | x_0) / q(x_t | x_0) and 1 + y_j the same ratio under the belief, divided by r_j.
        On a schedule that does not run from clean to noise it is the same rate, and bounds nothing.
        """
        return rate(log_p_x0, slots, self.schedule, self.count, self.never)

    def nelbo_of_logits(self, logits: Float[Tensor, "N K"], slots: Slots) -> Float[Tensor, " N"]:
        """The same, with its gradient in closed form and no more memory than the logits."""
        return Rate.apply(logits, slots, self.schedule, self.count, self.never)

    @property
    def why_no_bound(self) -> str | None:
        if self.schedule.complete:
            return None
        ratio = self.schedule.mask_ratio(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
        return f"its noise runs from {ratio[0]:.0%} to {ratio[1]:.0%} of the text, not from none to all of it"

    @property
    def plain(self) -> UniformDiffusion:
        if self.why_no_bound is None:
            return attentive(self)
        whole = self.schedule.unbounded()
        return dataclasses.replace(attentive(self), schedule=whole if whole.complete else LogLinear())
