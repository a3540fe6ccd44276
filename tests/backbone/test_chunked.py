"""Projection and score in chunks: the value and the gradients of all at once, and never more than one chunk."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dllm_lightning.backbone import ModernBert
from tests.backbone.nets import K, documents, modernbert, rows

IDS, SEGMENT = rows([documents((7, 12)), documents((17,), seed=1)], 20)
AT = torch.tensor([0, 3, 4, 8, 11, 15, 18, 20, 21, 22, 25, 30, 36])
TARGET = torch.randint(3, K, (len(AT),), generator=torch.Generator().manual_seed(3))
WEIGHT = torch.rand(len(AT), generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def score(logits: Tensor, start: int, stop: int) -> Tensor:
    """Surprise, and the probability of the target."""
    log_p = logits.double().log_softmax(-1).gather(1, TARGET[start:stop, None])
    return torch.cat([-log_p, log_p.exp()], dim=1)


def at_once(backbone: ModernBert, at: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    values = score(backbone(IDS, torch.zeros(IDS.shape), SEGMENT, at), 0, len(at))
    return (weight * values[:, 0]).sum(), values


def gradients(backbone: ModernBert) -> dict[str, Tensor]:
    """Of every trainable parameter; each must have one."""
    found = {name: p.grad for name, p in backbone.named_parameters() if p.requires_grad}
    assert all(gradient is not None for gradient in found.values())
    backbone.zero_grad()
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("n", [len(AT), 1, 0])
@pytest.mark.parametrize("chunk", [1, 3, 13, 1000])
def test_chunks_change_neither_value_nor_gradients(chunk: int, n: int, tied: bool) -> None:
    """In float64, to the last digits; an untied decoder too, and a batch that asks for nothing."""
    backbone = modernbert(sizes={"tie_word_embeddings": tied}, chunk=chunk).double()
    assert (backbone.network.decoder.weight is backbone.network.model.embeddings.tok_embeddings.weight) is tied
    total, values = backbone(IDS, torch.zeros(IDS.shape), SEGMENT, AT[:n], score=score, weight=WEIGHT[:n])
    (3 * total).backward()
    ours = gradients(backbone)
    expected, expected_values = at_once(backbone, AT[:n], WEIGHT[:n])
    (3 * expected).backward()
    assert_close(total, expected, rtol=1e-12, atol=1e-12)
    assert_close(values, expected_values, rtol=1e-12, atol=1e-12)
    assert not values.requires_grad
    assert_close(ours, gradients(backbone), rtol=1e-10, atol=1e-12)


def test_without_weights_every_slot_counts_once() -> None:
    backbone = modernbert(chunk=5).double()
    total, values = backbone(IDS, torch.zeros(IDS.shape), SEGMENT, AT, score=score)
    assert_close(total, values[:, 0].sum())


def test_without_gradients_the_values_are_the_same() -> None:
    backbone = modernbert(chunk=5)
    with_gradients = backbone(IDS, torch.zeros(IDS.shape), SEGMENT, AT, score=score, weight=WEIGHT)
    with torch.no_grad():
        without = backbone(IDS, torch.zeros(IDS.shape), SEGMENT, AT, score=score, weight=WEIGHT)
    assert_close(without[0], with_gradients[0].detach())
    assert_close(without[1], with_gradients[1])


def test_all_chunks_use_one_memory_which_the_score_may_write_over() -> None:
    backbone, places = modernbert(chunk=4).double(), set()

    def wasteful(logits: Tensor, start: int, stop: int) -> Tensor:
        places.add(logits.data_ptr())
        values = score(logits, start, stop)
        logits.detach().add_(1)  # nobody misses them
        return values

    with torch.no_grad():
        total, values = backbone(IDS, torch.zeros(IDS.shape), SEGMENT, AT, score=wasteful, weight=WEIGHT)
        expected, expected_values = at_once(backbone, AT, WEIGHT)
    assert len(places) == 1
    assert_close(total, expected)
    assert_close(values, expected_values)


def test_frozen_heads_and_frozen_bodies_train_what_is_left() -> None:
    for frozen in ("network.decoder", "network.head", "network.model"):
        backbone = modernbert(sizes={"tie_word_embeddings": False}, chunk=4).double()
        backbone.get_submodule(frozen).requires_grad_(False)
        total, _ = backbone(IDS, torch.zeros(IDS.shape), SEGMENT, AT, score=score, weight=WEIGHT)
        total.backward()
        ours = gradients(backbone)
        at_once(backbone, AT, WEIGHT)[0].backward()
        assert_close(ours, gradients(backbone), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("chunk", [3, 1000])
def test_under_bfloat16_autocast_chunks_agree_with_all_at_once(chunk: int) -> None:
    """Weights stay float32, and so do their gradients; arithmetic differs in the last bits of bfloat16."""
    backbone = modernbert(chunk=chunk)
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = backbone(IDS, torch.zeros(IDS.shape), SEGMENT, AT, score=score, weight=WEIGHT)
    total.backward()
    ours = gradients(backbone)
    with torch.autocast("cpu", torch.bfloat16):
        expected, _ = at_once(backbone, AT, WEIGHT)
    expected.backward()
    assert_close(total, expected, rtol=1e-2, atol=0)
    for name, theirs in gradients(backbone).items():
        assert ours[name].dtype == torch.float32
        assert (ours[name] - theirs).norm() <= 0.02 * theirs.norm(), name


class Widest(TorchDispatchMode):
    """Remembers how many logits were made at one time: the longest tensor whose last axis is the vocabulary."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.rows = width, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.shape[-1:] == (self.width,):
                self.rows = max(self.rows, tensor.numel() // self.width)
        return made


@pytest.mark.parametrize("n", [40, 200])
def test_no_more_than_one_chunk_of_logits_ever_exists(n: int) -> None:
    """Forward and backward, with and without gradients, however many slots are asked for (D < chunk < N)."""
    backbone = modernbert(sizes={"vocab_size": 997}, chunk=35)  # 997 is the size of nothing else
    at = torch.randint(0, IDS.numel(), (n,))

    def surprise(logits: Tensor, start: int, stop: int) -> Tensor:
        return -logits.log_softmax(-1)[:, :1]

    with Widest(997) as seen:
        backbone(IDS, torch.zeros(IDS.shape), SEGMENT, at, score=surprise)[0].backward()
    assert 0 < seen.rows <= 35
    with Widest(997) as seen, torch.no_grad():
        backbone(IDS, torch.zeros(IDS.shape), SEGMENT, at, score=surprise)
    assert 0 < seen.rows <= 35
    with Widest(997) as seen:
        backbone(IDS, torch.zeros(IDS.shape), SEGMENT, at).sum().backward()
    assert seen.rows == n
