"""lm-evaluation-harness: its tasks on our models, and our models for its command line. It is an extra of its own."""

from __future__ import annotations

from importlib.util import find_spec


class NoHarness(ValueError):
    """lm-evaluation-harness is not here."""


def check_installed() -> None:
    """Raises NoHarness where lm-evaluation-harness is not installed."""
    if find_spec("lm_eval") is None:
        raise NoHarness("lm-evaluation-harness is not installed: pip install 'dllm-lightning[eval]'.")


check_installed()

from dllm_lightning.harness.adapter import DiffusionLM  # noqa: E402
from dllm_lightning.harness.tasks import Tasks, load_tasks  # noqa: E402

__all__ = ["DiffusionLM", "NoHarness", "Tasks", "check_installed", "load_tasks"]
