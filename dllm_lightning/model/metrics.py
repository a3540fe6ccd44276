"""What validation adds up: the bound with its error, and accuracy and loss by how much of the text was noise.

Each metric is a handful of sums, so ranks and batches of any size add up to the same number.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from dllm_lightning.types import Canvas, Corrupted

BANDS = ("0-25", "25-50", "50-75", "75-100")
"""Names of the quarters of the noise, in percent of the answer."""


class Estimate(NamedTuple):
    mean: Tensor
    error: Tensor


class NatsPerToken(Metric):
    """Sum of nats over sum of tokens, with the standard error of that ratio over documents.

    A document counts once, with its nats averaged over the draws of its noise; so the error holds both what comes
    from the choice of documents and what is left of the noise (delta method for a ratio of means).
    """

    full_state_update = False
    nats: Tensor
    tokens: Tensor
    nats_squared: Tensor
    cross: Tensor
    tokens_squared: Tensor
    documents: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("nats", "tokens", "nats_squared", "cross", "tokens_squared", "documents"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, nats: Float[Tensor, " N"], slots: Int[Tensor, " N"], canvas: Canvas) -> None:
        """`nats` of the slots at `slots` (indices into B·L), which may come several times, once per draw."""
        segment = canvas.segment.long()
        width = segment.shape[1] + 1
        document = (segment + width * torch.arange(len(segment), device=segment.device)[:, None]).flatten()
        n = torch.zeros(len(segment) * width, dtype=torch.float64, device=segment.device)
        tokens = n.scatter_add(0, document, canvas.editable.flatten().double())
        total = n.scatter_add(0, document[slots], nats.double())
        self.nats += total.sum()
        self.tokens += tokens.sum()
        self.nats_squared += total.square().sum()
        self.cross += (total * tokens).sum()
        self.tokens_squared += tokens.square().sum()
        self.documents += (tokens > 0).sum()

    def compute(self) -> Estimate:
        mean = self.nats / self.tokens
        residual = self.nats_squared - 2 * mean * self.cross + mean.square() * self.tokens_squared
        n = self.documents
        return Estimate(mean, (residual.clamp(min=0) * n / (n - 1).clamp(min=1)).sqrt() / self.tokens)


class PerBand(Metric):
    """Mean surprise and accuracy of hidden or replaced slots, by quarter of the noise. Quarters nobody saw are nan."""

    full_state_update = False
    surprise: Tensor
    correct: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("surprise", "correct", "count"):
            self.add_state(name, torch.zeros(len(BANDS), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, ratio: Float[Tensor, " N"], surprise: Float[Tensor, " N"], correct: Float[Tensor, " N"]) -> None:
        band = (ratio * len(BANDS)).long().clamp(0, len(BANDS) - 1)
        self.surprise.scatter_add_(0, band, surprise.double())
        self.correct.scatter_add_(0, band, correct.double())
        self.count.scatter_add_(0, band, torch.ones_like(surprise, dtype=torch.float64))

    def compute(self) -> dict[str, Tensor]:
        values = {"accuracy": self.correct.sum() / self.count.sum()}
        for i, band in enumerate(BANDS):
            values[f"accuracy/{band}"] = self.correct[i] / self.count[i]
            values[f"loss/{band}"] = self.surprise[i] / self.count[i]
        return values


class UnigramEntropy(Metric):
    """Nats per token of the answers' own token frequencies: the score of a model that has learnt these and no more."""

    full_state_update = False
    counts: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(width, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, canvas: Canvas) -> None:
        self.counts += torch.bincount(canvas.ids[canvas.editable].long(), minlength=len(self.counts))

    def compute(self) -> Tensor:
        p = self.counts / self.counts.sum()
        return -torch.xlogy(p, p).sum()


def noise_share(batch: Corrupted) -> Float[Tensor, "B L"]:
    """The share of its document's editable slots that show something else than their clean token, for each slot."""
    editable = batch.clean.editable
    wrong = batch.clean.per_document(editable & (batch.x_t != batch.clean.ids))
    return wrong / batch.clean.per_document(editable).clamp(min=1)
