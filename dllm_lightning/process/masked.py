"""Masked diffusion: text is destroyed by hiding it (MDLM, arXiv:2406.07524; LLaDA, arXiv:2502.09992)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_lightning.noise import LogLinear
from dllm_lightning.process.draws import Draws
from dllm_lightning.process.hiding import Bernoulli, Hiding, Replace
from dllm_lightning.process.process import NoBound, Process, attentive
from dllm_lightning.types import Canvas, Corrupted, Slots


@dataclass(frozen=True)
class MaskedDiffusion(Process):
    """q(x_t | x_0) = alpha x_0 + (1 - alpha) [MASK], slot by slot; what was revealed stays.

    `hiding` chooses the slots and `replace` what they show; with the defaults this is the diffusion of the papers.
    Any other choice that breaks it (`why_no_bound`) still trains; its `plain` process is what it is measured by.
    """

    hiding: Hiding = field(default_factory=Bernoulli)
    replace: Replace = field(default_factory=Replace)

    def prior(self, canvas: Canvas, generator: torch.Generator | None = None) -> Int[Tensor, "B L"]:
        """All masks; nothing is drawn."""
        return torch.where(canvas.editable, self.vocab.mask_id, canvas.ids)

    def noised(self, canvas: Canvas, t: Float[Tensor, "B L"], draws: Draws) -> Corrupted:
        hidden, t = self.hiding.choose(canvas, t, self.schedule, draws)
        x_t = self.replace.apply(hidden, canvas, self.vocab.mask_id, self.vocab.noise_ids, draws)
        return Corrupted(canvas, x_t, t, asked=hidden)

    def asks(self, x_t: Int[Tensor, "B L"], editable: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
        return editable & (x_t == self.vocab.mask_id)

    @cached_property
    def never(self) -> Int[Tensor, " U"]:
        """The mask, and rows that no token belongs to.

        This is one half of SUBS (MDLM, section 3.2.3). The other puts all mass of a revealed slot on what it shows:
        nobody is asked about those here, and under a `replace` mixture the network must not believe what it sees.
        """
        return torch.tensor([self.vocab.mask_id, *range(self.vocab.length, self.vocab.size)])

    def posterior(
        self,
        p_x0: Float[Tensor, "N K"],
        x_t: Int[Tensor, " N"],
        alpha_s: Float[Tensor, " N"],
        alpha_t: Float[Tensor, " N"],
    ) -> Float[Tensor, "N K"]:
        masked = x_t == self.vocab.mask_id
        reveal = ((alpha_s - alpha_t) / (1 - alpha_t))[:, None]
        x_s = reveal * p_x0
        x_s[:, self.vocab.mask_id] = 1 - reveal.squeeze(-1)
        shown = torch.zeros_like(p_x0).scatter_(1, x_t[:, None], 1.0)
        return torch.where(masked[:, None], x_s, shown)

    @property
    def stationary(self) -> Float[Tensor, " K"]:
        return torch.nn.functional.one_hot(torch.tensor(self.vocab.mask_id), self.vocab.size).double()

    def nelbo(self, log_p_x0: Float[Tensor, "N K"], slots: Slots) -> Float[Tensor, " N"]:
        """-alpha' / (1 - alpha) · (-log p(x_0)) at masked slots, 0 elsewhere (MDLM, equation 10)."""
        if self.why_no_bound is not None:
            raise NoBound(f"This masked corruption has no likelihood bound, because {self.why_no_bound}.")
        surprise = -log_p_x0.gather(1, slots.x0[:, None]).squeeze(1)
        masked = slots.x_t == self.vocab.mask_id
        return torch.where(masked, self.weight(slots.t).to(surprise) * surprise, 0.0)

    def nelbo_of_logits(self, logits: Float[Tensor, "N K"], slots: Slots) -> Float[Tensor, " N"]:
        return self.nelbo(self.log_truth(logits, slots), slots._replace(x0=torch.zeros_like(slots.x0)))

    def mask_ratio(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """The share of a document that is hidden at the time of its slots, whose clock `hiding` sets."""
        return self.hiding.mask_ratio(t, self.schedule)

    def weight(self, t: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        """What the bound multiplies the surprise of a masked slot by: 1/t on the straight line."""
        return self.hiding.weight(t, self.schedule)

    @property
    def why_no_bound(self) -> str | None:
        if self.replace.mask < 1.0:
            shares = f"{self.replace.mask:.0%} masks, {self.replace.random:.0%} random, {self.replace.keep:.0%} kept"
            return f"its hidden slots do not all show a mask ({shares})"
        return self.hiding.why_no_bound(self.schedule)

    @property
    def plain(self) -> MaskedDiffusion:
        if self.why_no_bound is None and self.schedule.complete:
            return attentive(self)
        whole = self.schedule.unbounded()
        schedule = whole if whole.complete else LogLinear()
        return dataclasses.replace(attentive(self), schedule=schedule, hiding=Bernoulli(), replace=Replace())
