"""Diffusion language models on PyTorch Lightning: one process that destroys text, one backbone that restores it."""

__version__ = "0.1.0"
