"""What a sampler's numbers may be."""

from __future__ import annotations

import math
from collections.abc import Sequence


def check_count(name: str, value: int) -> None:
    """Raises ValueError unless the option is a whole number, and at least 1."""
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"sampler.{name}={value} never gets to the end of a text: give a whole number, 1 or more.")


def check_pace(steps: int | None, tokens_per_step: int | None) -> None:
    """Raises ValueError for two paces at once, and for one that never arrives."""
    for name, value in (("steps", steps), ("tokens_per_step", tokens_per_step)):
        if value is not None:
            check_count(name, value)
    if steps is not None and tokens_per_step is not None:
        raise ValueError(
            f"sampler.steps={steps} and sampler.tokens_per_step={tokens_per_step} both set the pace: "
            f"leave one of them null."
        )


def check_temperature(temperature: float) -> None:
    """Raises ValueError for a temperature that is negative or not a number."""
    if not isinstance(temperature, int | float) or not 0 <= temperature < math.inf:
        raise ValueError(
            f"sampler.proposal.temperature={temperature} sharpens nothing: give 0 for the most probable token, "
            f"1 for the network's own distribution, or another number above 0."
        )


def check_top_p(top_p: float) -> None:
    """Raises ValueError for a nucleus without a token, or of more than all of them."""
    if not isinstance(top_p, int | float) or not 0 < top_p <= 1:
        raise ValueError(
            f"sampler.proposal.top_p={top_p} is no share of the belief: give a number above 0, "
            f"and 1 to keep every token."
        )


def check_share(name: str, share: float) -> None:
    """Raises ValueError unless the option is a number from 0 to 1."""
    if not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ValueError(f"sampler.{name}={share} is no share: give a number from 0 to 1.")


def check_noise(noise: float) -> None:
    """Raises ValueError unless some of a draft is taken for noise."""
    if not isinstance(noise, int | float) or not 0 < noise <= 1:
        raise ValueError(
            f"sampler.noise={noise} leaves nothing to do in a draft: give the share of its tokens that may be wrong, "
            f"above 0 and 1 at most."
        )


def check_nats(name: str, value: float) -> None:
    """Raises ValueError unless the option is a finite number above 0."""
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"sampler.{name}={value} lets nothing through but one slot: give a number above 0.")


def check_ids(name: str, ids: Sequence[int]) -> None:
    """Raises ValueError unless the option is a list of token ids."""
    if any(not isinstance(each, int) or each < 0 for each in ids):
        raise ValueError(f"sampler.{name}={ids} names no tokens: give a list of their ids, as in [5,7].")
