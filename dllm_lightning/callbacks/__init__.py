"""Callbacks: they watch a run, and turn the knobs that a module offers."""

from dllm_lightning.callbacks.bad_steps import BadSteps
from dllm_lightning.callbacks.ending import Ending
from dllm_lightning.callbacks.last import LastCheckpoint
from dllm_lightning.callbacks.outcome import Outcome
from dllm_lightning.callbacks.progress import Progress
from dllm_lightning.callbacks.samples import SampleLogging
from dllm_lightning.callbacks.speed import TokensPerSecond
from dllm_lightning.callbacks.summary import Summary
from dllm_lightning.callbacks.temperature import TemperatureAnnealing

__all__ = [
    "BadSteps",
    "Ending",
    "LastCheckpoint",
    "Outcome",
    "Progress",
    "SampleLogging",
    "Summary",
    "TemperatureAnnealing",
    "TokensPerSecond",
]
