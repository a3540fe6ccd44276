"""MDM: a masked diffusion model (MDLM, LLaDA)."""

from typing import ClassVar

from dllm_lightning.model.module import DiffusionModule
from dllm_lightning.process import MaskedDiffusion, Process


class MDM(DiffusionModule):
    """Learns to fill in masks; from all masks, it writes."""

    accepts: ClassVar[tuple[type[Process], ...]] = (MaskedDiffusion,)
