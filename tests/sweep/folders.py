"""Folders as sweeps leave them, written by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any


def leave_job(sweep: Path, overrides: Mapping[str, object], result: Mapping[str, Any] | str | None) -> Path:
    """The folder of one job: Hydra's notes, and the result, where there is one."""
    text = [f"{key}={value}" for key, value in overrides.items()]
    job = sweep / ",".join(text).replace("/", "_")
    (job / ".hydra").mkdir(parents=True)
    (job / ".hydra" / "overrides.yaml").write_text("".join(f"- {json.dumps(each)}\n" for each in ["run=x", *text]))
    if result is not None:
        (job / "result.json").write_text(result if isinstance(result, str) else json.dumps(result))
    return job


def done(nelbo: float, **metrics: float) -> dict[str, Any]:
    """The result of a job that came to its end."""
    return {"status": "done", "why": None, "metrics": {"val/nelbo": nelbo, **metrics}, "steps": 6, "seconds": 61.2}


def failed(why: str) -> dict[str, Any]:
    return {"status": "failed", "why": why, "metrics": {}, "steps": 0, "seconds": 1.0}


def leave_sweep(sweep: Path, grid: Mapping[str, list[Any]], but: Mapping[int, Any] | None = None) -> Path:
    """Every combination of the values, the bound 1, 2, 3 ... in this order; `but` gives some another result."""
    for number, values in enumerate(product(*grid.values())):
        usual = done(1.0 + number, **{"val/nelbo_error": 0.1, "val/exact_match": 0.01 * number})
        leave_job(sweep, dict(zip(grid, values, strict=True)), (but or {}).get(number, usual))
    return sweep
