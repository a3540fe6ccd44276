"""What a sampler's numbers may be."""

from __future__ import annotations

import math


def check_count(name: str, value: int) -> None:
    """Raises ValueError unless the option is a whole number, and at least 1."""
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"sampler.{name}={value} never gets to the end of a text: give a whole number, 1 or more.")


def check_temperature(temperature: float) -> None:
    """Raises ValueError for a temperature that is negative or not a number."""
    if not isinstance(temperature, int | float) or not 0 <= temperature < math.inf:
        raise ValueError(
            f"sampler.temperature={temperature} sharpens nothing: give 0 for the most probable token, "
            f"1 for the network's own distribution, or another number above 0."
        )
