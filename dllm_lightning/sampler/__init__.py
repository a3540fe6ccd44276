"""Samplers: how to walk from noise to text."""

from dllm_lightning.sampler.ancestral import Ancestral
from dllm_lightning.sampler.choose import categorical, sharpen
from dllm_lightning.sampler.confidence import Confidence
from dllm_lightning.sampler.order import Order, Shuffled, Surest
from dllm_lightning.sampler.random_order import RandomOrder
from dllm_lightning.sampler.reveal import Reveal
from dllm_lightning.sampler.sampler import CannotUndo, Denoiser, Sampler

__all__ = [
    "Ancestral",
    "CannotUndo",
    "Confidence",
    "Denoiser",
    "Order",
    "RandomOrder",
    "Reveal",
    "Sampler",
    "Shuffled",
    "Surest",
    "categorical",
    "sharpen",
]
