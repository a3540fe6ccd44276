"""The bound of a data set's answers, in nats per token: what validation reports, with as many draws as wanted."""

from __future__ import annotations

import math

import torch

from dllm_lightning.data import Document
from dllm_lightning.data.order import shuffled
from dllm_lightning.data.store import Documents
from dllm_lightning.evaluation.findings import Finding, Section
from dllm_lightning.evaluation.given import bounds
from dllm_lightning.evaluation.subject import Subject, Track, untracked
from dllm_lightning.likelihood import ByCount, Estimator, per_token


def bound_of(
    subject: Subject,
    documents: Documents,
    by: Estimator,
    draws: int,
    limit: int | None = None,
    track: Track = untracked,
) -> Section:
    """The bound on -log p of the answers in these documents, and the perplexity that it limits.

    With a limit some documents stand for all, drawn by the seed. The noise of a document belongs to its number among
    all of them, so the batch size changes nothing.
    """
    numbers = shuffled(len(documents), subject.seed)[:limit].tolist()
    rows = [Document(*(field.tolist() for field in documents[[number]][0])) for number in numbers]
    tokens = torch.tensor([sum(row.editable) for row in rows])
    value, error, noise = per_token(bounds(subject, rows, numbers, by, draws, track), tokens)
    perplexity = math.exp(value) if value < 700 else math.inf
    of = f" of {len(documents)}" if len(numbers) < len(documents) else ""
    how = "count" if isinstance(by, ByCount) else "time"
    told = {
        "documents": len(numbers),
        "of": len(documents),
        "answer_tokens": int(tokens.sum()),
        "estimator": how,
        "draws": draws,
        "seed": subject.seed,
        "precision": subject.precision,
    }
    caption = (
        f"{len(numbers)}{of} documents, {int(tokens.sum())} answer tokens, {draws} draws by {how}, "
        f"{subject.precision}, seed {subject.seed}"
    )
    left = f", of which {noise:.2g} is noise" if math.isfinite(noise) else ""
    findings = [
        Finding("nelbo", "nelbo", value, error, note=f"nats per answer token{left}"),
        Finding("nelbo_noise", "", noise),
        Finding("ppl", "perplexity", perplexity, perplexity * error, note="at most: exp(nelbo)"),
    ]
    return Section("likelihood", caption, findings, told)
