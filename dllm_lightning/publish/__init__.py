"""A trained model as a folder that plain transformers loads, and as a repository on the Hugging Face hub."""

from dllm_lightning.publish.folder import NotFree, folder_for, publish
from dllm_lightning.publish.hub import CannotPush, check_hub, push
from dllm_lightning.publish.origin import Origin
from dllm_lightning.publish.tokenizer import CannotPublish

__all__ = ["CannotPublish", "CannotPush", "NotFree", "Origin", "check_hub", "folder_for", "publish", "push"]
