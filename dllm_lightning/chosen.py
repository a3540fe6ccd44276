"""What a command line makes of a model's own sampler: left alone, changed in parts, or replaced."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from dllm_lightning.mistakes import no_such_key


def for_hydra(arguments: Sequence[str]) -> list[str]:
    """`sampler.steps=8` without a `sampler=NAME` is about the model's own sampler, which Hydra knows nothing of.

    Nor does it know any before the jobs of a sweep begin, where `sampler=ONE,OTHER` is swept.
    """
    named = any(argument.startswith("sampler=") and "," not in argument for argument in arguments)
    return [f"++{each}" if each.startswith("sampler.") and not named else each for each in arguments]


def chosen(options: DictConfig | None, own: Any) -> Any:
    """The sampler of the command line, or the model's own, with what the command line changes in it."""
    if options is None:
        return own
    return instantiate(options) if "_target_" in options else changed(own, options, "sampler")


def changed(part: Any, options: DictConfig, key: str) -> Any:
    """A part with other values for these options, some of which may be parts themselves: `sampler.low.eta=0.02`.

    Raises ValueError for an option that the part does not have.
    """
    own = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    new: dict[str, Any] = {}
    for name, value in ((str(name), value) for name, value in options.items()):
        inside = f"{key}.{name}"
        if name not in own:
            raise ValueError(no_such_key(inside, [f"{key}.{each}" for each in own]))
        if hasattr(value, "items") and not dataclasses.is_dataclass(own[name]):
            raise ValueError(f"{inside}={own[name]} is a value and has no options: give another value.")
        if hasattr(value, "items"):
            new[name] = instantiate(value) if "_target_" in value else changed(own[name], value, inside)
        else:
            new[name] = value
    return dataclasses.replace(part, **new)
