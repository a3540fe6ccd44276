"""Backbones: the networks, and the one rule they share (logits only where they are asked for)."""

from dllm_lightning.backbone.backbone import Backbone, CannotPack
from dllm_lightning.backbone.cache.store import CannotRemember
from dllm_lightning.backbone.masked_lm import MaskedLM
from dllm_lightning.backbone.modernbert import ModernBert
from dllm_lightning.backbone.networks import InvalidBackbone
from dllm_lightning.backbone.sizes import check_sizes

__all__ = ["Backbone", "CannotPack", "CannotRemember", "InvalidBackbone", "MaskedLM", "ModernBert", "check_sizes"]
