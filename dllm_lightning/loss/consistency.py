"""Agreement with a teacher that stands closer to the clean text, on the same noise (Duo, arXiv:2506.10892)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_lightning.loss.loss import Objective
from dllm_lightning.process import Process, UniformDiffusion

Kl = Literal["backward", "forward"]


@dataclass(frozen=True)
class Consistency(Objective):
    """The divergence between what a student believes of a slot at t and what its teacher believes at s < t.

    `kl` backward: KL(student || teacher), with which a student settles on one of the answers that the teacher sees.
    forward: KL(teacher || student), with which it spreads over all of them. In nats per slot; it bounds nothing, and
    is zero for a student that says at t what its teacher says at s.

    Raises ValueError for another `kl`.
    """

    kl: Kl = "backward"

    accepts: ClassVar[tuple[type[Process], ...]] = (UniformDiffusion,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kl not in get_args(Kl):
            raise ValueError(f"loss.kl={self.kl!r} is no direction of a divergence: choose backward or forward.")

    def __call__(self, log_student: Float[Tensor, "N K"], log_teacher: Float[Tensor, "N K"]) -> Float[Tensor, " N"]:
        """Nats per slot. What neither believes possible, the ids that are no states, adds nothing."""
        surplus = log_student - log_teacher
        surplus = torch.where(log_student == -torch.inf, 0.0, surplus)
        if self.kl == "backward":
            return (log_student.exp() * surplus).sum(-1)
        return -(log_teacher.exp() * surplus).sum(-1)
