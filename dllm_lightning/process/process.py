"""What every corruption of text has to answer.

The story of one training step. A canvas arrives from the loader, clean. The schedule gives each document a time t, and
`corrupt` noises its editable slots to that time. The network reads x_t and is asked about some slots, and only there
does it compute logits (N K). `log_p_x0` reads these as beliefs about the clean tokens, under the rules of this
corruption. A loss descends on the beliefs; `nelbo` says what they are worth: a bound, in nats per slot, on -log p of
the clean text. To write text instead, start from `prior` and let `posterior` take one step at a time from t to the
cleaner s.

A process is immutable, knows tensors only, and gives the same answer to the same question for ever.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_lightning.noise import NoiseSchedule
from dllm_lightning.process.draws import Draws
from dllm_lightning.process.prompt import check_prompt, drawn, words
from dllm_lightning.process.truth import LogTruth
from dllm_lightning.types import Canvas, Corrupted, Slots, Vocab


class NoBound(ValueError):
    """The corruption is not a diffusion, so no likelihood bound belongs to it."""


@dataclass(frozen=True)
class Process(ABC):
    """One way to destroy text, and what it takes to restore it.

    `prompt_dropout` is the share of documents whose prompt is not shown in training, for guidance (see `Guided`);
    `prompt_keep` are the ids that stay there all the same, null: all that is no ordinary text, such as the markers of
    a template. Raises ValueError for what is no share, or no token.
    """

    vocab: Vocab
    schedule: NoiseSchedule
    prompt_dropout: float = field(default=0.0, kw_only=True)
    prompt_keep: Sequence[int] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        keep = None if self.prompt_keep is None else tuple(self.prompt_keep)  # comparable, whatever list it came as
        object.__setattr__(self, "prompt_keep", keep)
        check_prompt(self.prompt_dropout, keep, self.vocab)

    @abstractmethod
    def prior(self, canvas: Canvas, generator: torch.Generator | None = None) -> Int[Tensor, "B L"]:
        """x_1: the canvas with every editable slot drawn from pure noise."""

    def corrupt(self, canvas: Canvas, t: Float[Tensor, "B L"], draws: Draws) -> Corrupted:
        """x_t ~ q(x_t | x_0) on the editable slots; all others come back bit for bit, if no prompt is dropped."""
        return self.prompted(self.noised(canvas, t, draws), draws)

    @abstractmethod
    def noised(self, canvas: Canvas, t: Float[Tensor, "B L"], draws: Draws) -> Corrupted:
        """The same with every prompt shown."""

    def prompted(self, noised: Corrupted, draws: Draws) -> Corrupted:
        """Takes the prompt from a share of the documents. It draws last, so that all other noise is what it was."""
        if not self.prompt_dropout:
            return noised
        gone = drawn(noised.clean, self.prompt_dropout, draws) & self.prompt(noised.clean)
        return noised._replace(x_t=torch.where(gone, self.vocab.mask_id, noised.x_t))

    def prompt(self, canvas: Canvas) -> Bool[Tensor, "B L"]:
        """What a text without its prompt lacks: the slots that were given, but for the ids that are kept."""
        return ~canvas.editable & (canvas.segment > 0) & self._words.to(canvas.ids.device)[canvas.ids]

    @cached_property
    def _words(self) -> Bool[Tensor, " K"]:
        return words(self.vocab, self.prompt_keep)

    @abstractmethod
    def asks(self, x_t: Int[Tensor, "B L"], editable: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
        """The editable slots whose clean value is still in question."""

    def log_p_x0(self, logits: Float[Tensor, "N K"], slots: Slots) -> Float[Tensor, "N K"]:
        """The network's belief about the clean tokens: log-softmax without what is never clean, in float32 at least."""
        never = torch.zeros(logits.shape[-1], device=logits.device)  # float32, and so is the sum at least
        never[self.never.to(logits.device)] = -torch.inf
        return (logits + never).log_softmax(-1)

    def log_truth(self, logits: Float[Tensor, "N K"], slots: Slots) -> Float[Tensor, "N 1"]:
        """The true token's column of `log_p_x0`. The logits are used up: it may write over them."""
        return LogTruth.apply(logits, slots.x0, self.never)

    @property
    @abstractmethod
    def never(self) -> Int[Tensor, " U"]:
        """The ids that are never clean, ascending."""

    def guess(self, logits: Float[Tensor, "N K"]) -> Int[Tensor, " N"]:
        """The most probable clean token."""
        return logits.index_fill(1, self.never.to(logits.device), -torch.inf).argmax(-1)

    @abstractmethod
    def posterior(
        self,
        p_x0: Float[Tensor, "N K"],
        x_t: Int[Tensor, " N"],
        alpha_s: Float[Tensor, " N"],
        alpha_t: Float[Tensor, " N"],
    ) -> Float[Tensor, "N K"]:
        """q(x_s | x_t, x_0) with x_0 averaged over p_x0: the reverse step from t to s < t. Rows sum to 1."""

    @property
    @abstractmethod
    def stationary(self) -> Float[Tensor, " K"]:
        """pi, the probabilities of what a slot holds at t = 1."""

    def renoised(
        self,
        p_x0: Float[Tensor, "N K"],
        x_t: Int[Tensor, " N"],
        alpha_s: Float[Tensor, " N"],
        alpha_t: Float[Tensor, " N"],
    ) -> Float[Tensor, "N K"]:
        """alpha_s q(x_0 | x_t) + (1 - alpha_s) pi: the whole way back to clean text, and noised again up to s."""
        clean = self.posterior(p_x0, x_t, torch.ones_like(alpha_s), alpha_t)
        return alpha_s[:, None] * clean + (1 - alpha_s[:, None]) * self.stationary.to(clean)

    @abstractmethod
    def mask_ratio(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """1 - alpha at the time of each slot: how much is destroyed. This is the clock that networks are told."""

    @abstractmethod
    def nelbo(self, log_p_x0: Float[Tensor, "N K"], slots: Slots) -> Float[Tensor, " N"]:
        """The continuous-time bound, in nats per slot: its mean over t and x_t, summed over slots, bounds -log p(x_0).

        Raises NoBound when this corruption is not a diffusion (see `why_no_bound`).
        """

    def nelbo_of_logits(self, logits: Float[Tensor, "N K"], slots: Slots) -> Float[Tensor, " N"]:
        """`nelbo`, by a shorter way where there is one. The logits are used up: it may write over them."""
        return self.nelbo(self.log_p_x0(logits, slots), slots)

    @property
    @abstractmethod
    def why_no_bound(self) -> str | None:
        """None for a true diffusion; else the clause that says why its training loss bounds nothing."""

    @property
    @abstractmethod
    def plain(self) -> Process:
        """The true diffusion behind this corruption, prompts shown: what validation measures and samplers invert."""


P = TypeVar("P", bound=Process)


def attentive(process: P) -> P:
    """The same process, with every prompt shown."""
    return dataclasses.replace(process, prompt_dropout=0.0) if process.prompt_dropout else process
