"""Denoisers that a sampler can be judged by: one that knows the answer, one that knows a joint distribution, and a
little network whose beliefs at every slot depend on all others."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from dllm_lightning.noise import LogLinear
from dllm_lightning.process import Denoiser, MaskedDiffusion, Reading, UniformDiffusion
from dllm_lightning.types import Canvas, Vocab
from tests.laws.parts import vocabulary


def plain(vocab: Vocab) -> MaskedDiffusion:
    return MaskedDiffusion(vocab, LogLinear())


def uniform(vocab: Vocab) -> UniformDiffusion:
    return UniformDiffusion(vocab, LogLinear())


class Table(Denoiser):
    """Has the whole table at once, and hands it over in one piece."""

    process: Any

    @abstractmethod
    def table(self, x_t: Tensor, t: Tensor, at: Tensor) -> Tensor:
        """log p(x_0 | x_t) at the slots in `at`."""

    def read(self, x_t: Tensor, t: Tensor, segment: Tensor, at: Tensor, reading: Reading) -> tuple[Tensor, ...]:
        return reading(self.table(x_t, t, at).clone(), slice(0, int(at.sum())))


class Oracle(Table):
    """Knows the clean text, and is never in doubt."""

    def __init__(self, x0: Tensor, process: Any) -> None:
        self.x0, self.process = x0, process

    def table(self, x_t: Tensor, t: Tensor, at: Tensor) -> Tensor:
        log_p = torch.full((int(at.sum()), self.process.vocab.size), -torch.inf)
        x0 = self.x0.repeat(len(at) // len(self.x0), 1)  # with guidance every row is asked twice
        return log_p.scatter_(1, x0[at][:, None], 0.0)


class Fixed(Table):
    """Believes the same of every text: log_p (L K) is its belief at each slot."""

    def __init__(self, log_p: Tensor, process: Any) -> None:
        self.log_p, self.process = log_p, process

    def table(self, x_t: Tensor, t: Tensor, at: Tensor) -> Tensor:
        return self.log_p.expand(*at.shape, -1)[at]


class Joint(Table):
    """Knows a joint distribution p (V V ... V) of L tokens, and conditions it on every token that is not masked."""

    def __init__(self, p: Tensor, process: Any) -> None:
        self.p, self.process = p, process
        self.texts = torch.cartesian_prod(*(torch.arange(size) for size in p.shape)).reshape(-1, p.dim())

    def table(self, x_t: Tensor, t: Tensor, at: Tensor) -> Tensor:
        shown = x_t[:, None, :] != self.process.vocab.mask_id
        agrees = ((x_t[:, None, :] == self.texts) | ~shown).all(-1)
        weight = agrees * self.p.flatten()
        beliefs = torch.zeros(*x_t.shape, self.process.vocab.size, dtype=torch.float64)
        for token in range(self.p.shape[0]):
            beliefs[..., token] = weight @ (self.texts == token).double()
        return (beliefs / weight.sum(-1)[:, None, None]).log()[at]

    def counts(self, texts: Tensor) -> Tensor:
        """How often each text came out."""
        place = (texts[:, None, :] == self.texts).all(-1).long().argmax(1)
        return torch.bincount(place, minlength=len(self.texts))


class Cavity(Joint):
    """Knows a joint distribution, and weighs every other token by how likely uniform noise made it what it is.

    This is what a perfect network believes: the clean token of a slot, given all slots but its own.
    """

    def table(self, x_t: Tensor, t: Tensor, at: Tensor) -> Tensor:
        alpha = self.process.schedule.alpha(t.double())[:, None, None]
        agrees = x_t[:, None, :] == self.texts  # (B texts L)
        likelihood = alpha * agrees + (1 - alpha) / self.process.count
        others = self.p.flatten()[None, :, None] * likelihood.prod(-1, keepdim=True) / likelihood
        beliefs = torch.zeros(*x_t.shape, self.process.vocab.size, dtype=torch.float64)
        for token in range(self.p.shape[0]):
            beliefs[..., token] = (others * (self.texts == token)).sum(1)
        return (beliefs / beliefs.sum(-1, keepdim=True)).log()[at]


class LittleNetwork(nn.Module):
    """Random logits that depend on the whole row and on distances alone; its favourite token is the mask."""

    def __init__(self, vocab: Vocab, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.embedding = torch.randn(vocab.size, 16, generator=draw, dtype=torch.float64)
        self.nearness = torch.randn(201, 16, generator=draw, dtype=torch.float64)
        self.head = torch.randn(16, vocab.size, generator=draw, dtype=torch.float64)
        self.head[:, vocab.mask_id] *= 3
        self.rows: list[int] = []

    def forward(
        self,
        ids: Tensor,
        t: Tensor,
        segment: Tensor,
        at: Tensor,
        score: Callable[[Tensor, int, int], Tensor] | None = None,
    ) -> Tensor:
        self.rows.append(len(ids))
        place = torch.arange(ids.shape[1])
        near = self.nearness[place[:, None] - place[None, :] + 100]
        seen = self.embedding[ids] * (segment > 0)[..., None]
        states = torch.einsum("ijd,bjd->bid", near, seen).sin()
        logits = (states @ self.head).flatten(0, 1)[at]
        return logits if score is None else in_pieces(score, logits)


def in_pieces(score: Callable[[Tensor, int, int], Tensor], logits: Tensor, size: int = 7) -> Tensor:
    """As a backbone scores: a few slots at a time."""
    pieces = [
        score(logits[start : start + size], start, min(start + size, len(logits)))
        for start in range(0, len(logits), size)
    ]
    return torch.cat(pieces)


def blank(*lengths: int, prompt: int = 3, vocab: Vocab | None = None, seed: int = 0) -> Canvas:
    """Left-padded rows: a random prompt, and an empty answer of each length."""
    vocab = vocab or vocabulary(11)
    draw = torch.Generator().manual_seed(seed)
    rows = [torch.randint(0, vocab.mask_id, (prompt,), generator=draw).tolist() + [vocab.mask_id] * n for n in lengths]
    documents = [(ids, [False] * prompt + [True] * n) for ids, n in zip(rows, lengths, strict=True)]
    return Canvas.left_padded(documents, vocab.pad_id)


def row_of(canvas: Canvas, index: int) -> Canvas:
    """One row alone, without its padding."""
    real = canvas.segment[index] > 0
    return Canvas(*(field[index : index + 1, real] for field in canvas))
