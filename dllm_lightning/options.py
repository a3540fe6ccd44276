"""What the options of a command may be. What they may not be is said in one sentence, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable

from omegaconf import DictConfig


def check_choices(cfg: DictConfig, **allowed: Iterable[str]) -> None:
    """Raises ValueError unless each option is one of the words that it may be."""
    for name, words in allowed.items():
        if cfg[name] not in words:
            raise ValueError(f"{name}={cfg[name]} is unknown: choose one of {', '.join(words)}.")


def check_flags(cfg: DictConfig, *names: str) -> None:
    """Raises ValueError unless each option is true or false."""
    for name in names:
        if not isinstance(cfg[name], bool):
            raise ValueError(f"{name}={cfg[name]} is neither true nor false.")


def check_counts(cfg: DictConfig, *names: str, least: int = 1, null: bool = False) -> None:
    """Raises ValueError unless each option is a whole number, `least` or more, or null where that says something."""
    for name in names:
        if not (type(cfg[name]) is int and cfg[name] >= least) and not (null and cfg[name] is None):
            raise ValueError(f"{name}={cfg[name]} is no number of things: give a whole number, {least} or more.")


def check_seed(cfg: DictConfig) -> None:
    """Raises ValueError for a seed that no generator takes."""
    if type(cfg.seed) is not int or not 0 <= cfg.seed < 2**63:
        raise ValueError(f"seed={cfg.seed} is no seed: give a whole number, from 0 to {2**63 - 1}.")
