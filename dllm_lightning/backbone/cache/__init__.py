"""What a walk need not compute twice: keys and values of the columns that hardly change from one call to the next."""

from dllm_lightning.backbone.cache.memory import Memory
from dllm_lightning.backbone.cache.policy import Cache, Delayed, Dual, Prefix, Vicinity, nothing
from dllm_lightning.backbone.cache.store import Store, View

__all__ = ["Cache", "Delayed", "Dual", "Memory", "Prefix", "Store", "Vicinity", "View", "nothing"]
