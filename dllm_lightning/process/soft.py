"""Soft tokens: slots that show a mixture of tokens, on the way from a Gaussian to the place of its largest number.

Each slot has K numbers, one per state: alpha_tilde e_x + sigma_tilde epsilon (see `relaxation.py`). The place of the
largest is the hard token; softmax(numbers / tau) is the mixture that a network reads in the curriculum of Duo
(arXiv:2506.10892). K normals for each slot are gigabytes a batch, and all but a few of them weigh nothing. So only the
largest of the others are drawn, as order statistics, which need no others to be the largest of; the clean token's own
number is always among what is kept, and what lies below the smallest enters by its mean. The hard token is the largest
of what is kept, which is the largest of all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dllm_lightning.process.draws import Draws, PerPlace
from dllm_lightning.process.relaxation import Relaxed
from dllm_lightning.process.uniform import UniformDiffusion
from dllm_lightning.types import Canvas, Corrupted, SoftTokens


class Latents(NamedTuple):
    """Standard normals of M slots, from which any gamma can be told: the clean token's own first, then R - 1 others'.

    `ranks` says whose they are, counted among the states. `hidden` further ones lie below the last, in every slot.
    """

    ranks: Int[Tensor, "M R"]
    normal: Float[Tensor, "M R"]
    hidden: int

    def at(self, gamma: Float[Tensor, " M"]) -> Float[Tensor, "M R"]:
        """alpha_tilde e_x + sigma_tilde epsilon."""
        own = torch.zeros_like(self.normal)
        own[:, 0] = torch.sigmoid(-gamma).sqrt()
        return own + torch.sigmoid(gamma).sqrt()[:, None] * self.normal

    def hard(self, gamma: Float[Tensor, " M"]) -> Int[Tensor, " M"]:
        """The rank of the largest: a state of uniform-state diffusion at alpha = T(gamma)."""
        return self.ranks.gather(1, self.at(gamma).argmax(1, keepdim=True)).squeeze(1)

    def weights(self, gamma: Float[Tensor, " M"], tau: float) -> tuple[Float[Tensor, "M R"], Float[Tensor, " M"]]:
        """softmax(latents / tau), and the share of what is hidden; together they sum to 1.

        The hidden ones have their mean, given that they lie below c = sigma_tilde q, the smallest kept:
        E[exp(y / tau) | y < c] = exp(c / tau - q^2 / 2) erfcx(m / √2) / (2 Phi(q)), where m = sigma_tilde / tau - q.
        """
        latents = self.at(gamma)
        largest = latents.amax(1, keepdim=True)
        share = ((latents - largest) / tau).exp()
        below = torch.zeros_like(gamma)
        if self.hidden:
            q = self.normal[:, -1]
            m = torch.sigmoid(gamma).sqrt() / tau - q
            gap = (latents[:, -1] - largest[:, 0]) / tau
            mean = torch.exp(gap - q**2 / 2 - torch.special.log_ndtr(q)) * torch.special.erfcx(m / math.sqrt(2.0)) / 2
            below = self.hidden * mean
        total = share.sum(1) + below
        return share / total[:, None], below / total


def all_latents(x: Int[Tensor, " M"], normal: Float[Tensor, "M K"]) -> Latents:
    """Every one of them: the reference, and the way for small K."""
    others = torch.arange(normal.shape[1] - 1, device=x.device).expand(len(x), -1)
    return Latents(_with_own(x, others), normal, hidden=0)


def top_latents(
    x: Int[Tensor, " M"],
    own: Float[Tensor, " M"],
    ladder: Float[Tensor, "k M"],
    picks: Float[Tensor, "k M"],
    count: int,
) -> Latents:
    """The k largest of the N = count - 1 others', descending, from uniform numbers in (0, 1), and their random owners.

    The largest of n uniforms is u^(1/n), and those below it are uniform again: log U_(i) = sum_{j<=i} log u_j / (N - j
    + 1), and the latents are Phi^-1 of that, in float64 because U is within 1e-5 of 1.
    """
    k, others = len(ladder), count - 1
    left = torch.arange(others, others - k, -1, device=x.device)[:, None]
    log_u = (ladder.double().log() / left).cumsum(0)
    upper = log_u > -math.log(2.0)
    tail = torch.where(upper, -torch.expm1(log_u), log_u.exp())  # the smaller of 1 - U and U keeps its digits
    normal = torch.special.ndtri(tail) * torch.where(upper, -1.0, 1.0)
    normal = torch.cat([torch.special.ndtri(own.double())[None], normal])
    return Latents(_with_own(x, _distinct(picks, others).T), normal.T, hidden=others - k)


def _distinct(u: Float[Tensor, "k M"], count: int) -> Int[Tensor, "k M"]:
    """k distinct numbers below count, in random order: the first k cards of a shuffled deck that is never laid out.

    Shuffling swaps card j with card p_j >= j. What ends in place j is found by following place p_j back through the
    swaps before it.
    """
    first = torch.arange(len(u), device=u.device)[:, None]
    swap = first + (u.double() * (count - first)).long()
    card = swap.clone()
    for j in range(len(u) - 2, -1, -1):
        card[j + 1 :].masked_fill_(card[j + 1 :] == swap[j], j)
    return card


def _with_own(x: Int[Tensor, " M"], others: Int[Tensor, "M k"]) -> Int[Tensor, "M R"]:
    """x, and numbers among all others than x made numbers among all."""
    return torch.cat([x[:, None], others + (others >= x[:, None])], dim=1)


@dataclass(frozen=True)
class SoftCorruption:
    """Corruption as the curriculum of Duo has it: the hard tokens of a process, and the soft ones that led to them.

    `top_k` others' latents are drawn for each slot (arXiv:2602.21185 has the idea), or all of them when it is None; at
    the temperatures of the papers 2 to 8 carry nearly all the weight. A slot costs the same at any K.

    Raises TypeError for a process whose schedule is not `Relaxed`, and ValueError for one relaxed over another number
    of classes and for top_k below 1.
    """

    process: UniformDiffusion
    top_k: int | None = 8

    def __post_init__(self) -> None:
        schedule, count = self.process.schedule, self.process.count
        if not isinstance(schedule, Relaxed):
            raise TypeError(
                f"Soft tokens come from a Gaussian, and the schedule {type(schedule).__name__} has none: "
                f"give the process the schedule Relaxed(classes={count})."
            )
        if schedule.classes != count:
            raise ValueError(
                f"The schedule has classes={schedule.classes}, but the process has {count} states: "
                f"give it Relaxed(classes={count})."
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} keeps no other token: choose 1 or more, or null for all of them.")

    def corrupt(self, canvas: Canvas, t: Float[Tensor, "B L"], draws: Draws, tau: float) -> Corrupted:
        """x_t as `process.corrupt` would have drawn it, and its soft tokens at temperature tau; none at tau = 0.

        Raises ValueError for a negative tau.
        """
        if not tau >= 0.0:
            raise ValueError(f"tau={tau} is no temperature of soft tokens: choose 0 or more.")
        asked = canvas.editable & self.process.is_state(canvas.ids)
        at = asked.flatten().nonzero().squeeze(1)
        gamma = self.schedule.gamma(t.flatten()[at].double())
        latents = self.latents(canvas, at, draws)
        states = self.process.states.to(canvas.ids)
        x_t = canvas.ids.flatten().index_copy(0, at, states[latents.hard(gamma)]).view_as(canvas.ids)
        if tau == 0.0:
            return self.process.prompted(Corrupted(canvas, x_t, t, asked), draws)
        weight, rest = latents.weights(gamma, tau)
        rest = torch.where(rest < 2.0**-24, 0.0, rest)  # beside 1 that is nothing in float32: so tau -> 0 is exact
        soft = SoftTokens(at, states[latents.ranks], weight.float(), rest.float())
        return self.process.prompted(Corrupted(canvas, x_t, t, asked, soft), draws)

    def latents(self, canvas: Canvas, at: Int[Tensor, " M"], draws: Draws) -> Latents:
        """Fresh latents of the slots `at`, whose clean tokens are states."""
        x, count = self.process.rank(canvas.ids.flatten()[at]), self.process.count
        # 24 random bits are few to tell 50,000 tokens by, or the far end of a normal: all share 25 further ones.
        finer = (_drawn(draws, canvas, at, 1) + 2.0**-25) * 2.0**-24

        def uniform(numbers: int) -> Float[Tensor, "k M"]:
            return _drawn(draws, canvas, at, numbers) + finer

        if self.top_k is None:
            return all_latents(x, torch.special.ndtri(uniform(count)).T)
        k = min(self.top_k, count - 1)
        return top_latents(x, uniform(1)[0], uniform(k), uniform(k), count)

    @property
    def schedule(self) -> Relaxed:
        assert isinstance(self.process.schedule, Relaxed)
        return self.process.schedule


def _drawn(draws: Draws, canvas: Canvas, at: Int[Tensor, " M"], numbers: int) -> Float[Tensor, "k M"]:
    """So many fresh numbers for each of the slots `at`, in float64."""
    if isinstance(draws, PerPlace):  # training: a dozen small operations, and not a dozen for each number
        return draws.uniforms(canvas, at, numbers).double()
    return torch.stack([draws.uniform(canvas).flatten()[at] for _ in range(numbers)]).double()
