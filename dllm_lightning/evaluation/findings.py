"""What an evaluation found: numbers with their errors, and by what each was measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple


class Finding(NamedTuple):
    """One number.

    `name` is what scripts know it by, `called` what stands in a table. `error` is its standard error, where there is
    one; `reference` the same number for the answers as they were written, where that can be said.
    """

    name: str
    called: str
    value: float
    error: float = math.nan
    reference: float = math.nan
    note: str = ""


class Section(NamedTuple):
    """Numbers that were measured together, and how: `told` is for scripts, `caption` says it in a line."""

    title: str
    caption: str
    findings: Sequence[Finding]
    told: dict[str, Any]


def metrics(sections: Iterable[Section]) -> dict[str, float]:
    """All numbers by name; errors as NAME_error, those of the given answers as references/NAME."""
    found: dict[str, float] = {}
    for each in (finding for section in sections for finding in section.findings):
        values = {each.name: each.value, f"{each.name}_error": each.error, f"references/{each.name}": each.reference}
        found |= {name: float(value) for name, value in values.items() if math.isfinite(value)}
    return found
