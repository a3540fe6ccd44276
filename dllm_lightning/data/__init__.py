"""From conversations to batches of clean canvases: sources, templates, packing, order, and data modules around them."""

from dllm_lightning.data.chat import ChatDataModule
from dllm_lightning.data.documents import Encoder
from dllm_lightning.data.messages import BadRow
from dllm_lightning.data.native import Native
from dllm_lightning.data.original import Original
from dllm_lightning.data.packing import Layout, pack
from dllm_lightning.data.rows import BadData
from dllm_lightning.data.template import ChatTemplate, Document
from dllm_lightning.data.toy_module import ToyDataModule
from dllm_lightning.data.tulu import TuluDataModule
from dllm_lightning.data.turns import Turns

__all__ = [
    "BadData",
    "BadRow",
    "ChatDataModule",
    "ChatTemplate",
    "Document",
    "Encoder",
    "Layout",
    "Native",
    "Original",
    "ToyDataModule",
    "TuluDataModule",
    "Turns",
    "pack",
]
