"""The terminal: text coming out of noise, in place, and a conversation with a model."""

from dllm_lightning.terminal.chat import Chat
from dllm_lightning.terminal.forms import console, output
from dllm_lightning.terminal.live import LiveView
from dllm_lightning.terminal.output import JsonOutput, LiveOutput, Output, PlainOutput
from dllm_lightning.terminal.pieces import Pieces

__all__ = [
    "Chat",
    "JsonOutput",
    "LiveOutput",
    "LiveView",
    "Output",
    "Pieces",
    "PlainOutput",
    "console",
    "output",
]
