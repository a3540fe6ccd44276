"""Samplers: how to walk from noise to text."""

from dllm_lightning.sampler.ancestral import Ancestral
from dllm_lightning.sampler.blockwise import Blockwise
from dllm_lightning.sampler.choose import categorical, nucleus, sharpen
from dllm_lightning.sampler.corrections import Corrections
from dllm_lightning.sampler.guided import Guided
from dllm_lightning.sampler.kappa import Cap, Conf, Constant, Fixed, Kappa, Posterior, PredictorCorrector, Rescale
from dllm_lightning.sampler.order import Judged, LeastEntropy, LeftToRight, Margin, Order, Shuffled, Surest
from dllm_lightning.sampler.pace import EntropyBound, Even, Factor, Pace, Scheduled, Several, Threshold
from dllm_lightning.sampler.profile import Linear, Plateau, Profile
from dllm_lightning.sampler.proposal import Proposal
from dllm_lightning.sampler.psi import Psi
from dllm_lightning.sampler.refine import Refine
from dllm_lightning.sampler.reveal import Reveal
from dllm_lightning.sampler.sampler import CannotUndo, Sampler
from dllm_lightning.sampler.undo import AtRandom, Never, Replan, Undo

__all__ = [
    "Ancestral",
    "AtRandom",
    "Blockwise",
    "CannotUndo",
    "Cap",
    "Conf",
    "Constant",
    "Corrections",
    "EntropyBound",
    "Even",
    "Factor",
    "Fixed",
    "Guided",
    "Judged",
    "Kappa",
    "LeastEntropy",
    "LeftToRight",
    "Linear",
    "Margin",
    "Never",
    "Order",
    "Pace",
    "Plateau",
    "Posterior",
    "PredictorCorrector",
    "Profile",
    "Proposal",
    "Psi",
    "Refine",
    "Replan",
    "Rescale",
    "Reveal",
    "Sampler",
    "Scheduled",
    "Several",
    "Shuffled",
    "Surest",
    "Threshold",
    "Undo",
    "categorical",
    "nucleus",
    "sharpen",
]
