"""Drawing tokens from beliefs: the one place where a sampler meets chance."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

TINY = 1e-300
"""Keeps the logarithm of an exponential draw finite, so that a token without mass can never win a race."""


def categorical(
    log_p: Float[Tensor, "N K"], temperature: float = 1.0, generator: torch.Generator | None = None
) -> Int[Tensor, " N"]:
    """A token per row, drawn from p^(1/temperature) normalised; at temperature 0 the most probable.

    The draw is a race of exponentials: token j arrives after E_j / p_j, and the first to arrive wins. It runs in
    float64, because in float32 tokens below 1e-7 would never be drawn at all.
    """
    if temperature == 0:
        return log_p.argmax(-1)
    arrival = torch.empty(log_p.shape, dtype=torch.float64, device=log_p.device)
    arrival.exponential_(generator=generator).clamp_(min=TINY)
    return (log_p.double() / temperature - arrival.log_()).argmax(-1)


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


def probability_of(x0: Int[Tensor, " N"], log_p_x0: Float[Tensor, "N K"]) -> Float[Tensor, " N"]:
    """The belief in each chosen token, untempered, in float32. Raises ValueError when the network believes nothing."""
    p = log_p_x0.gather(1, x0[:, None]).squeeze(1).float().exp()
    if p.isnan().any():
        raise ValueError(
            "The network's beliefs are not numbers (NaN), so there is nothing to draw a token from. "
            "Its weights have diverged: go back to an earlier checkpoint, or train with a lower learning rate."
        )
    return p
