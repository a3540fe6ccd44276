"""Drawing tokens from beliefs: the one place where a sampler meets chance."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

TINY = 1e-300
"""Keeps the logarithm of an exponential draw finite, so that a token without mass can never win a race."""
CELLS = 2**23
"""Numbers in one table of a draw: slots are drawn in blocks of rows, so that float64 stays affordable."""


def categorical(
    log_p: Float[Tensor, "N K"], temperature: float = 1.0, generator: torch.Generator | None = None
) -> Int[Tensor, " N"]:
    """A token per row, drawn from p^(1/temperature) normalised; at temperature 0 the most probable.

    The draw is a race of exponentials: token j arrives after E_j / p_j, and the first to arrive wins. It runs in
    float64, because in float32 tokens below 1e-7 would never be drawn at all.
    """
    if temperature == 0:
        return log_p.argmax(-1)
    winners = []
    for some in log_p.split(max(1, CELLS // log_p.shape[1])):
        arrival = torch.empty(some.shape, dtype=torch.float64, device=some.device)
        arrival.exponential_(generator=generator).clamp_(min=TINY)
        winners.append((some.double() / temperature - arrival.log_()).argmax(-1))
    return torch.cat(winners)


def sharpen(log_p: Float[Tensor, "N K"], temperature: float) -> Float[Tensor, "N K"]:
    """log of p^(1/temperature), normalised, in float64; at temperature 0 all mass is on the most probable token."""
    log_p = log_p.double()
    if temperature == 0:
        return torch.full_like(log_p, -torch.inf).scatter_(1, log_p.argmax(-1, keepdim=True), 0.0)
    return (log_p / temperature).log_softmax(-1)


def nucleus(p: Float[Tensor, "N K"], top_p: float) -> Float[Tensor, "N K"]:
    """The most probable tokens, until those before hold more than `top_p`; the others get nothing, the rest sums to 1.

    The first is always kept (Holtzman et al., arXiv:1904.09751). Public samplers of the field drop the token that
    crosses the line as well, a slightly smaller set.
    """
    if top_p == 1.0:
        return p
    descending, order = p.sort(-1, descending=True)
    before = descending.cumsum(-1) - descending
    kept = torch.zeros_like(p).scatter_(1, order, torch.where(before <= top_p, descending, 0.0))
    return kept / kept.sum(-1, keepdim=True)


def most_probable(p: Float[Tensor, "N K"], k: int) -> Float[Tensor, "N K"]:
    """The k most probable tokens keep their probability, the others get nothing."""
    most, tokens = p.topk(min(k, p.shape[1]), dim=-1)
    return torch.zeros_like(p).scatter_(1, tokens, most)


def probability_of(x0: Int[Tensor, " N"], log_p_x0: Float[Tensor, "N K"]) -> Float[Tensor, " N"]:
    """The belief in each chosen token, untempered, in float32."""
    return log_p_x0.gather(1, x0[:, None]).squeeze(1).float().exp()


def check_numbers(lost: Bool[Tensor, ""] | bool) -> None:
    """Raises ValueError where beliefs are lost, that is, no numbers."""
    if lost:
        raise ValueError(
            "The network's beliefs are not numbers (NaN), so there is nothing to draw a token from. "
            "Its weights have diverged: go back to an earlier checkpoint, or train with a lower learning rate."
        )
