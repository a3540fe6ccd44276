"""Processes: what corruption does to tokens, and how to undo one step."""

from dllm_lightning.process.denoiser import Denoiser, Reading
from dllm_lightning.process.draws import Draws, PerDocument, PerPlace, Random
from dllm_lightning.process.hiding import Bernoulli, FloorCount, Hiding, Replace, UniformCount
from dllm_lightning.process.masked import MaskedDiffusion
from dllm_lightning.process.process import NoBound, Process
from dllm_lightning.process.relaxation import Gaussian, Relaxed
from dllm_lightning.process.soft import SoftCorruption
from dllm_lightning.process.trajectory import GaussianTrajectory
from dllm_lightning.process.uniform import UniformDiffusion

__all__ = [
    "Bernoulli",
    "Denoiser",
    "Draws",
    "FloorCount",
    "Gaussian",
    "GaussianTrajectory",
    "Hiding",
    "MaskedDiffusion",
    "NoBound",
    "PerDocument",
    "PerPlace",
    "Process",
    "Random",
    "Reading",
    "Relaxed",
    "Replace",
    "SoftCorruption",
    "UniformCount",
    "UniformDiffusion",
]
