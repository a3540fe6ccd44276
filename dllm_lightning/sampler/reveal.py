"""Reveal a masked text some slots at a time: the loop of LLaDA (arXiv:2502.09992, algorithm 5), and of many others.

At each step the network proposes a token for every slot still masked; some proposals are written down, the others are
forgotten. Four parts make a sampler of it: what is proposed, which slots come first, how many are written, and what is
taken back. Nothing here knows how these decide.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_lightning.process import Denoiser, MaskedDiffusion, Process, Reading
from dllm_lightning.sampler.checks import check_count
from dllm_lightning.sampler.choose import check_numbers, probability_of
from dllm_lightning.sampler.order import Judged, Order, Surest
from dllm_lightning.sampler.pace import Even, Pace
from dllm_lightning.sampler.proposal import Proposal
from dllm_lightning.sampler.sampler import Sampler
from dllm_lightning.sampler.undo import Never, Undo
from dllm_lightning.types import Canvas, Step, Trajectory, Vocab

PATIENCE = 4
"""Steps for each slot of the longest answer, after which a walk counts as one that never ends."""


@dataclass(frozen=True)
class Reveal(Sampler):
    """Writes down the foremost slots at each step.

    `steps` is the number of network calls for a whole text, where the `pace` shares it out over them; null is one
    token a step. Each row has its own share and its own end. Of a draft only the masks are filled.

    One step waits once for the device: which slots are hidden is all that the host has to know.
    Raises ValueError for a number of steps that the pace does not go by.
    """

    steps: int | None = None
    order: Order = field(default_factory=Surest)
    pace: Pace = field(default_factory=Even)
    proposal: Proposal = field(default_factory=Proposal)
    undo: Undo = field(default_factory=Never)

    accepts: ClassVar[tuple[type[Process], ...]] = (MaskedDiffusion,)

    def __post_init__(self) -> None:
        if self.steps is None:
            return
        check_count("steps", self.steps)
        if not self.pace.shares:
            raise ValueError(
                f"sampler.steps={self.steps} and sampler.pace {type(self.pace).__name__} both say how many tokens are "
                f"written at a time: leave sampler.steps null, or take sampler/pace=even."
            )

    def walk(
        self,
        denoiser: Denoiser,
        canvas: Canvas,
        generator: torch.Generator | None,
        x: Int[Tensor, "B L"],
        drafted: bool,
    ) -> Trajectory:
        process, (_, editable, segment) = denoiser.process, canvas
        hidden = process.asks(x, editable)
        at, slots = hidden.cpu(), editable.cpu()
        clock = _clock(process, slots.sum(1)).float().to(x.device)
        moments = _clock(process, slots.sum()[None])[0].tolist()
        limit = PATIENCE * int(at.sum(1).amax()) if len(at) else 0
        written = self.pace.rule(hidden.sum(1), self.steps, process.schedule, generator)
        kept = self.undo.rule(editable, generator)
        t, index = moments[int(at.sum())], 0
        while at.any():
            if index == limit:
                raise RuntimeError(f"{self} does not come to an end: it takes back as much as it writes.")
            asked = slots & at.any(1, keepdim=True) if self.undo.reconsiders else at
            place = asked.to(x.device, non_blocking=True)
            reading = self._reading(process.vocab, x, asked, generator)
            found = denoiser.read(x, clock.gather(1, hidden.sum(1)[:, None])[:, 0], segment, asked, reading)
            x0, sure, rank, measure = (_spread(values, place) for values in found)
            chosen = written(index, rank, measure, hidden)
            shown = kept(rank, editable & ~hidden, chosen)
            before, still = x, editable & ~shown
            x = torch.where(still, process.vocab.mask_id, torch.where(hidden, x0, x))
            changed = x != before
            at, lost = _at_home(still, sure.isnan().any())
            check_numbers(lost)
            hidden, t, was = still, moments[int(at.sum())], t
            yield Step(index, was, t, x, changed, torch.where(changed & ~still, sure, 0.0))
            index += 1

    def _reading(
        self, vocab: Vocab, x: Int[Tensor, "B L"], asked: Bool[Tensor, "B L"], generator: torch.Generator | None
    ) -> Reading:
        """For each slot: a token, the belief in it, its rank, and what the pace goes by."""
        here = x.flatten()[asked.flatten().nonzero().squeeze(1).to(x.device)] if self.undo.reconsiders else None

        def reading(log_p_x0: Tensor, part: slice) -> tuple[Tensor, ...]:
            belief = self.proposal.belief(log_p_x0, vocab)
            x0 = self.proposal.draw(belief, generator)
            if here is not None:
                x0 = torch.where(here[part] == vocab.mask_id, x0, here[part])
            sure = probability_of(x0, belief)
            seen = self.proposal.judged(belief, vocab)
            judged = Judged(seen, sure if seen is belief else probability_of(x0, seen))
            rank = self.order.rank(judged, generator)
            if self.proposal.end_last:
                rank = rank.masked_fill(x0 == vocab.eos_id, torch.finfo(rank.dtype).min)
            return x0, sure, rank, self.pace.measure(judged)

        return reading


def _spread(values: Tensor, place: Bool[Tensor, "B L"]) -> Tensor:
    """The values of the slots, where these lie; 0 elsewhere."""
    return torch.zeros(place.shape, dtype=values.dtype, device=place.device).masked_scatter_(place, values)


def _at_home(still: Bool[Tensor, "B L"], lost: Bool[Tensor, ""]) -> tuple[Bool[Tensor, "B L"], Bool[Tensor, ""]]:
    """Both on the host, for one wait."""
    told = torch.cat([still.flatten(), lost[None]]).cpu()
    return told[:-1].view(still.shape), told[-1]


def _clock(process: Process, slots: Int[Tensor, " B"]) -> Float[Tensor, "B most"]:
    """The times at which the schedule hides 0, 1, 2 ... of so many slots, in float64."""
    hidden = torch.arange(int(slots.amax()) + 1 if len(slots) else 1, dtype=torch.float64)
    share = hidden / slots.clamp(min=1)[:, None]
    return process.schedule.time_of(1.0 - share.clamp(max=1.0))
