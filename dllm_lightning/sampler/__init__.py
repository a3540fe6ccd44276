"""Samplers: how to walk from noise to text."""

from dllm_lightning.sampler.ancestral import Ancestral
from dllm_lightning.sampler.choose import categorical, nucleus, sharpen
from dllm_lightning.sampler.confidence import Confidence
from dllm_lightning.sampler.corrections import Corrections
from dllm_lightning.sampler.kappa import Cap, Conf, Constant, Fixed, Kappa, Posterior, PredictorCorrector, Rescale
from dllm_lightning.sampler.order import Order, Shuffled, Surest
from dllm_lightning.sampler.profile import Linear, Plateau, Profile
from dllm_lightning.sampler.psi import Psi
from dllm_lightning.sampler.random_order import RandomOrder
from dllm_lightning.sampler.refine import Refine
from dllm_lightning.sampler.reveal import Reveal
from dllm_lightning.sampler.sampler import CannotUndo, Sampler

__all__ = [
    "Ancestral",
    "CannotUndo",
    "Cap",
    "Conf",
    "Confidence",
    "Constant",
    "Corrections",
    "Fixed",
    "Kappa",
    "Linear",
    "Order",
    "Plateau",
    "Posterior",
    "PredictorCorrector",
    "Profile",
    "Psi",
    "RandomOrder",
    "Refine",
    "Rescale",
    "Reveal",
    "Sampler",
    "Shuffled",
    "Surest",
    "categorical",
    "nucleus",
    "sharpen",
]
