"""A little Duo, always with the same weights."""

from __future__ import annotations

from typing import Any

from dllm_lightning.loss import Elbo, Loss
from dllm_lightning.model import Duo
from dllm_lightning.noise import LogLinear
from dllm_lightning.process import UniformDiffusion
from tests.backbone.nets import modernbert
from tests.model.parts import ADAMW, VOCAB


def duo(loss: Loss | None = None, kind: type[Duo] = Duo, time_conditioning: bool = True, **options: Any) -> Any:
    backbone = modernbert(chunk=32, time_conditioning=time_conditioning)
    return kind(UniformDiffusion(VOCAB, LogLinear()), backbone, loss or Elbo(), ADAMW, **options)
