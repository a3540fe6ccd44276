"""How probable a text is: bounds on -log p in nats, by drawing noise, with the errors of the draws."""

from dllm_lightning.likelihood.bound import nats
from dllm_lightning.likelihood.errors import PerToken, noise, per_token
from dllm_lightning.likelihood.estimator import ByCount, ByTime, CannotEstimate, Estimator, estimator
from dllm_lightning.likelihood.numbered import Numbered

__all__ = [
    "ByCount",
    "ByTime",
    "CannotEstimate",
    "Estimator",
    "Numbered",
    "PerToken",
    "estimator",
    "nats",
    "noise",
    "per_token",
]
