"""The true bound: descend on exactly what validation reports."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from dllm_lightning.loss.loss import Loss
from dllm_lightning.process import MaskedDiffusion, Process
from dllm_lightning.types import Slots


@dataclass(frozen=True)
class Elbo(Loss):
    """The process's own negative ELBO. Its mean over all editable slots bounds the nats per answer token."""

    def __call__(self, log_p_x0: Float[Tensor, "N K"], slots: Slots, process: Process) -> Float[Tensor, " N"]:
        return process.nelbo(log_p_x0, slots)

    def of_logits(self, logits: Float[Tensor, "N K"], slots: Slots, process: Process) -> Float[Tensor, " N"]:
        return process.nelbo_of_logits(logits, slots)

    def refuses(self, process: Process) -> str | None:
        if process.why_no_bound is None:
            return None
        masked = isinstance(process, MaskedDiffusion)
        others, name = ("masked_ce or loss=weighted_ce", "masked") if masked else ("ce or loss=symmetric_kl", "uniform")
        return (
            f"this corruption has no likelihood bound, because {process.why_no_bound}. "
            f"Train with loss={others} (val/nelbo still reports the bound of the plain process), "
            f"or take noise.min_ratio=0 noise.max_ratio=1 process={name}."
        )
