"""Where to compute."""

from __future__ import annotations

import torch


def place(name: str) -> torch.device:
    """A device by its name, or the best there is by `auto`. Raises ValueError for one that is not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.Generator(torch.empty(0, device=name).device).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"There is no device={name} here: give auto or cpu, or cuda where there is a GPU.") from error
