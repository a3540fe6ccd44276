"""Where a model comes from, as its checkpoint tells: the run, its numbers, and which weights these are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple


class Origin(NamedTuple):
    """What a folder says of the run behind it. `raw`: the weights are not the average that the run kept."""

    config: dict[str, Any]
    steps: int | None
    metrics: dict[str, float]
    command: str | None
    averaged: bool
    raw: bool

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any], raw: bool) -> Origin:
        """Reads what is there: a checkpoint need not know its command or its metrics."""
        recipe, averaged = checkpoint["recipe"], "current_model_state" in checkpoint
        metrics = {str(name): float(value) for name, value in (checkpoint.get("metrics") or {}).items()}
        finite = {name: value for name, value in sorted(metrics.items()) if math.isfinite(value)}
        steps, command = checkpoint.get("global_step"), recipe.get("command")
        return cls(recipe["config"], steps, finite, command, averaged, raw and averaged)

    @property
    def sources(self) -> list[str]:
        """What it was trained on: files, folders and hub ids; none where the conversations were made in memory."""
        path = self.config["data"].get("path") or []
        if isinstance(path, Mapping):
            return [str(each.get("path", name) if isinstance(each, Mapping) else each) for name, each in path.items()]
        return [str(path)] if isinstance(path, str) else [str(each) for each in path]
