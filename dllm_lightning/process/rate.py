"""placeholder"""
from __future__ import annotations
from typing import Any
import torch
from torch import Tensor
from dllm_lightning.noise import NoiseSchedule
from dllm_lightning.types import Slots


def rate(log_p_x0: Tensor, slots: Slots, schedule: NoiseSchedule, count: int) -> Tensor:
    t = slots.t.double()
    ratio = schedule.mask_ratio(t)
    alpha = (1 - ratio).clamp(min=1e-30)
    c = (count * alpha / ratio)[:, None].to(log_p_x0)
    p = log_p_x0.exp()
    x, z = slots.x0[:, None], slots.x_t[:, None]
    log_rho = torch.log1p(c * p) - torch.log1p(c * p.gather(1, z))
    log_r = torch.zeros_like(p).scatter_(1, x, torch.log1p(c)) - torch.where(x == z, torch.log1p(c), 0.0)
    delta = log_rho - log_r
    inside = torch.isfinite(log_p_x0)
    terms = torch.where(inside, log_r.exp() * (torch.expm1(delta) - delta), 0.0)
    return (-schedule.alpha_prime(t) / (count * alpha)).to(p) * terms.sum(-1)


class Rate:
    @staticmethod
    def apply(logits: Tensor, slots: Slots, schedule: NoiseSchedule, count: int, never: Tensor) -> Any:
        raise RuntimeError("placeholder")
