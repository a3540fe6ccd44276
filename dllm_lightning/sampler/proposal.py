"""What is proposed for a slot: how a token is drawn from a belief, and which tokens never are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dllm_lightning.sampler.checks import check_count, check_ids, check_share, check_temperature, check_top_p
from dllm_lightning.sampler.choose import categorical, most_probable, nucleus, sharpen
from dllm_lightning.types import Vocab


@dataclass(frozen=True)
class Proposal:
    """Draws from p^(1/temperature), less what is cut off; at temperature 0 takes the most probable token.

    `top_k` keeps the k most probable tokens, `top_p` a nucleus of them, `min_p` those that have at least this share of
    the most probable one's probability (arXiv:2407.01082); each looks at the tempered distribution, the strictest
    wins. `suppress` are ids that are never proposed. What a process holds for never clean (`[MASK]`) has no
    probability to begin with.

    `no_end`: nor is the token that ends an answer, so the text fills its slots. `end_last`: it is proposed, but counts
    as the least sure of all, and the others as sure as they would be without it, so ends are written last (LLaDA's
    `confidence_eos_eot_inf`). Raises ValueError for numbers without sense.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    suppress: Sequence[int] = ()
    no_end: bool = False
    end_last: bool = False

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        if self.top_k is not None:
            check_count("proposal.top_k", self.top_k)
        check_top_p(self.top_p)
        check_share("proposal.min_p", self.min_p)
        check_ids("proposal.suppress", self.suppress)
        object.__setattr__(self, "suppress", tuple(self.suppress))  # comparable, whatever list it came as

    def check_unordered(self, sampler: str) -> None:
        """Raises ValueError for what only makes sense to a sampler that ranks slots by their proposals."""
        if self.end_last:
            raise ValueError(
                f"sampler.proposal.end_last=true puts slots in an order, and {sampler} has none for them. Use "
                f"sampler=confidence, or sampler.proposal.no_end=true for a text that fills its slots."
            )

    def belief(self, log_p_x0: Float[Tensor, "N K"], vocab: Vocab) -> Float[Tensor, "N K"]:
        """The belief without the tokens that are never proposed, normalised again.

        Raises ValueError for an id that is no row of the belief.
        """
        never = [*self.suppress, *([vocab.eos_id] if self.no_end else [])]
        return without(log_p_x0, never) if never else log_p_x0

    def draw(self, belief: Float[Tensor, "N K"], generator: torch.Generator | None) -> Int[Tensor, " N"]:
        """A token for each slot."""
        if self.temperature == 0:
            return belief.argmax(-1)
        if self.keeps_all:
            return categorical(belief, self.temperature, generator)
        return categorical(self.tempered(belief).log(), generator=generator)

    @property
    def keeps_all(self) -> bool:
        return self.top_k is None and self.top_p == 1.0 and self.min_p == 0.0

    def tempered(self, belief: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
        """The distribution that tokens are drawn from, in float64. Rows sum to 1."""
        p = sharpen(belief, self.temperature).exp()
        if self.keeps_all or self.temperature == 0:
            return p
        kept = p if self.top_k is None else most_probable(p, self.top_k)
        kept = torch.where(nucleus(p, self.top_p) > 0, kept, 0.0)
        kept = torch.where(p >= self.min_p * p.amax(-1, keepdim=True), kept, 0.0)
        return kept / kept.sum(-1, keepdim=True)

    def judged(self, belief: Float[Tensor, "N K"], vocab: Vocab) -> Float[Tensor, "N K"]:
        """The belief by which slots are ranked."""
        return without(belief, [vocab.eos_id]) if self.end_last else belief


def without(log_p: Float[Tensor, "N K"], ids: Sequence[int]) -> Float[Tensor, "N K"]:
    """The distribution without these tokens. Raises ValueError for ids beyond its width."""
    if max(ids) >= log_p.shape[1]:
        raise ValueError(
            f"sampler.proposal.suppress has the id {max(ids)}, and the vocabulary ends at {log_p.shape[1] - 1}."
        )
    return log_p.index_fill(1, torch.tensor(ids, device=log_p.device), -torch.inf).log_softmax(-1)
