"""LightningModules: one per family of diffusion language models."""

from dllm_lightning.model.distill import DuoDistill
from dllm_lightning.model.duo import Duo
from dllm_lightning.model.mdm import MDM
from dllm_lightning.model.module import DiffusionModule
from dllm_lightning.model.optimizer import AdamW
from dllm_lightning.model.sharded import ShardedModelParallel

__all__ = ["MDM", "AdamW", "DiffusionModule", "Duo", "DuoDistill", "ShardedModelParallel"]
