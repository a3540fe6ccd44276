"""Prompts that are not shown: what a network has to know for classifier-free guidance (arXiv:2207.12598).

Guidance compares what a network believes with what it would believe without the prompt, so it must have seen texts
without one. Shown instead is [MASK], whatever the process: under masks it means "not known" anyway, and under uniform
noise, where it is no state, it says the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from dllm_lightning.process.draws import Draws
from dllm_lightning.types import Canvas, Vocab


def words(vocab: Vocab, keep: Sequence[int] | None) -> Bool[Tensor, " K"]:
    """The ids that go when a prompt goes: all but those in `keep`; without a list, the ordinary tokens.

    So by itself the layout stays: where a turn begins, whose it is, where the answer starts. What a network believes
    without the prompt is then what it believes without the question, and not without knowing what it is asked to write.
    """
    gone = torch.full((vocab.size,), keep is not None)
    gone[vocab.noise_ids if keep is None else torch.tensor(keep, dtype=torch.long)] = keep is None
    return gone


def drawn(canvas: Canvas, share: float, draws: Draws) -> Bool[Tensor, "B L"]:
    """All slots of a random share of the documents: the number of a document is that of its first slot."""
    first = torch.arange(canvas.ids.shape[1], device=canvas.ids.device) - canvas.position()
    return draws.uniform(canvas).gather(1, first) < share


def check_prompt(share: float, keep: Sequence[int] | None, vocab: Vocab) -> None:
    """Raises ValueError for what is no share, or no token of the vocabulary."""
    if not 0 <= share <= 1:
        raise ValueError(f"process.prompt_dropout={share} is no share of the documents: give a number from 0 to 1.")
    if wrong := [i for i in keep or () if not 0 <= i < vocab.length]:
        raise ValueError(
            f"process.prompt_keep has {wrong[0]}, which is no token: "
            f"give ids from 0 to {vocab.length - 1}, or null for all that is no ordinary text."
        )
