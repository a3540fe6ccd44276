"""Losses: what to descend, in nats per slot, and how the one mean over them is taken."""

from dllm_lightning.loss.consistency import Consistency
from dllm_lightning.loss.cross_entropy import CE
from dllm_lightning.loss.elbo import Elbo
from dllm_lightning.loss.loss import Loss, Objective, Share, surprise
from dllm_lightning.loss.masked_ce import MaskedCE
from dllm_lightning.loss.symmetric_kl import SymmetricKL
from dllm_lightning.loss.weighted_ce import WeightedCE

__all__ = [
    "CE",
    "Consistency",
    "Elbo",
    "Loss",
    "MaskedCE",
    "Objective",
    "Share",
    "SymmetricKL",
    "WeightedCE",
    "surprise",
]
