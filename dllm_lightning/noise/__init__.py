"""Noise schedules: how much of the text survives until time t."""

from dllm_lightning.noise.cosine import Cosine
from dllm_lightning.noise.geometric import Geometric
from dllm_lightning.noise.loglinear import LogLinear
from dllm_lightning.noise.polynomial import Polynomial
from dllm_lightning.noise.schedule import NoiseSchedule

__all__ = ["Cosine", "Geometric", "LogLinear", "NoiseSchedule", "Polynomial"]
