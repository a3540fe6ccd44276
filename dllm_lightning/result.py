"""What a run came to, as a small file in its folder: `result.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULT = "result.json"


def read_result(folder: Path) -> dict[str, Any]:
    """What the job in a folder came to; empty when it has not come to an end."""
    try:
        found = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Writes `result.json` whole or not at all."""
    write_whole(folder / RESULT, json.dumps(result, indent=1) + "\n")


def write_whole(file: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    aside = file.with_name(f".{file.name}.partial")
    aside.write_text(text, encoding="utf-8")
    aside.replace(file)
