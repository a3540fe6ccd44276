"""What an estimate of nats per token is worth: how far it would move with other texts, and with other noise.

Texts are the units that were drawn: the tokens of one are surprising together, so they do not count one by one. The
value of a text is the mean over the draws of its noise, so the error over texts holds what is left of the noise, too.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor


class PerToken(NamedTuple):
    """Nats per token, its standard error, and the part of the error that more draws of the noise would take away.

    The error is not a number for a single text, nor is the noise for a single draw.
    """

    value: float
    error: float
    noise: float


def per_token(nats: Float[Tensor, "D n"], tokens: Int[Tensor, " D"]) -> PerToken:
    """Sum of nats over sum of tokens, from n stratified draws of each of D texts.

    Its error is that of a ratio of means over texts (delta method).
    """
    nats, count, total = nats.double(), len(nats), tokens.double().sum()
    value = nats.mean(1).sum() / total
    residual = nats.mean(1) - value * tokens
    error = (residual.square().sum() * count / (count - 1)).sqrt() / total if count > 1 else math.nan
    return PerToken(float(value), float(error), float(noise(nats).square().sum().sqrt() / total))


def noise(nats: Float[Tensor, "D n"]) -> Float[Tensor, " D"]:
    """The standard error of each text's mean over its draws, which are pairs from n / 2 strata (see `Numbered`).

    A pair y, y' has the variance (y - y')^2 / 2, whatever the mean of its stratum.
    """
    nats, count = nats.double(), nats.shape[1]
    if count == 1:
        return nats.new_full((len(nats),), math.nan)
    return (nats[:, 0::2] - nats[:, 1::2]).square().sum(1).sqrt() / count
