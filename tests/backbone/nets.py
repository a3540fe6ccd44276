"""Networks of a few thousand weights, documents for them to read, and the same documents laid out in several ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dllm_lightning.backbone import Backbone, MaskedLM, ModernBert

K = 61
MODERNBERT = {
    "model_type": "modernbert",
    "vocab_size": K,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,  # the first and the last see everything, the two between them their window
    "num_attention_heads": 4,
    "local_attention": 8,
    "initializer_range": 0.05,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}
BERT = {
    "model_type": "bert",
    "vocab_size": K,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 48,
    "initializer_range": 0.05,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "pad_token_id": 0,
}
ROBERTA = BERT | {"model_type": "roberta", "type_vocab_size": 1, "pad_token_id": 1, "max_position_embeddings": 50}


def modernbert(seed: int = 0, sizes: dict[str, Any] | None = None, **options: Any) -> ModernBert:
    """Small, random, and always the same."""
    torch.manual_seed(seed)
    return ModernBert(config=MODERNBERT | (sizes or {}), **options)


def masked_lm(config: dict[str, Any], seed: int = 0, **options: Any) -> MaskedLM:
    torch.manual_seed(seed)
    return MaskedLM(config=config, **options)


def documents(lengths: Sequence[int], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, K, (length,), generator=generator) for length in lengths]


def rows(layout: Sequence[Sequence[Tensor]], length: int, left: int = 0, pad_id: int = 0) -> tuple[Tensor, Tensor]:
    """Ids and segments of rows of packed documents, after `left` slots of padding."""
    ids = torch.full((len(layout), length), pad_id)
    segment = torch.zeros(len(layout), length, dtype=torch.long)
    for row, packed in enumerate(layout):
        start = left
        for number, document in enumerate(packed, start=1):
            ids[row, start : start + len(document)] = document
            segment[row, start : start + len(document)] = number
            start += len(document)
    return ids, segment


def everywhere(backbone: Backbone, ids: Tensor, segment: Tensor) -> Tensor:
    """Logits (B L K) at every slot."""
    times = torch.full(ids.shape, 0.5)
    return backbone(ids, times, segment, torch.arange(ids.numel())).unflatten(0, ids.shape)


def per_document(backbone: Backbone, ids: Tensor, segment: Tensor) -> list[Tensor]:
    """Logits of each document, in row order."""
    logits = everywhere(backbone, ids, segment)
    found = []
    for row in range(len(ids)):
        found += [logits[row, segment[row] == number] for number in range(1, int(segment[row].max()) + 1)]
    return found
