"""What a network reads besides ids: mixtures of tokens, and how much is noise."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from dllm_lightning.backbone import MaskedLM
from dllm_lightning.types import SoftTokens
from tests.backbone.nets import BERT, ROBERTA, documents, everywhere, masked_lm, modernbert, rows

IDS, SEGMENT = rows([[document] for document in documents((9, 5, 12))], 12)
EVERY = torch.arange(IDS.numel())
NETWORKS = {"modernbert": modernbert, "bert": lambda **o: masked_lm(BERT, **o)}
NETWORKS["roberta"] = lambda **o: masked_lm(ROBERTA, **o)

every_network = pytest.mark.parametrize("kind", NETWORKS)


def logits(network: MaskedLM, soft: SoftTokens | None = None, level: float = 0.5) -> torch.Tensor:
    return network(IDS, torch.full(IDS.shape, level), SEGMENT, EVERY, soft=soft)


def one_hot(at: torch.Tensor, ids: torch.Tensor) -> SoftTokens:
    """All weight on the first of three tokens."""
    three = torch.stack([ids, ids.roll(1), ids.roll(2)], dim=1)
    return SoftTokens(at, three, torch.tensor([1.0, 0.0, 0.0]).expand(len(at), 3), torch.zeros(len(at)))


@every_network
def test_a_soft_token_with_all_weight_on_one_is_that_one(kind: str) -> None:
    network = NETWORKS[kind]().eval()
    at = EVERY[SEGMENT.flatten() > 0][::2]
    assert_close(logits(network, one_hot(at, IDS.flatten()[at])), logits(network), rtol=0, atol=1e-6)


@every_network
def test_a_soft_token_is_the_weighted_sum_of_its_rows_and_its_rest_the_mean_row(kind: str) -> None:
    network = NETWORKS[kind]().eval()
    table = network.network.get_input_embeddings().weight
    soft = SoftTokens(
        torch.tensor([1, 14]),
        torch.tensor([[5, 6], [7, 8]]),
        torch.tensor([[0.5, 0.25], [0.9, 0.1]]),
        torch.tensor([0.25, 0.0]),
    )
    read = network.read(IDS, torch.zeros(IDS.shape), soft)["inputs_embeds"].flatten(0, 1)
    assert_close(read[1], 0.5 * table[5] + 0.25 * table[6] + 0.25 * table.mean(0))
    assert_close(read[14], 0.9 * table[7] + 0.1 * table[8])
    others = torch.tensor([i for i in range(IDS.numel()) if i not in (1, 14)])
    assert torch.equal(read[others], table[IDS.flatten()[others]])


@pytest.mark.parametrize("rest", [0.0, 0.3])
def test_soft_tokens_train_the_rows_they_mix(rest: float) -> None:
    """And all rows a little, where something is left for their mean; one that is mixed in twice, twice."""
    network = modernbert()
    for p in network.parameters():
        p.requires_grad_(False)
    table = network.network.get_input_embeddings().weight.requires_grad_()
    ids, weight = torch.tensor([[58, 59], [59, 60]]), torch.tensor([[0.7, 0.3 - rest], [0.25, 0.75]])
    soft = SoftTokens(torch.tensor([1, 2]), ids, weight, torch.tensor([rest, 0.0]))
    embedded = network.read(IDS, torch.zeros(IDS.shape), soft)["inputs_embeds"]
    (grad,) = torch.autograd.grad(embedded[0, 1].sum() + 2 * embedded[0, 2].sum(), table)
    expected = torch.full((len(table), 1), rest / len(table))
    expected[58:61, 0] += torch.tensor([0.7, 0.3 - rest + 0.5, 1.5])
    assert_close(grad, expected.expand_as(grad))


@every_network
def test_a_new_time_embedding_changes_nothing(kind: str) -> None:
    """So a pretrained network starts as it was."""
    plain, timed = NETWORKS[kind]().eval(), NETWORKS[kind](time_conditioning=True).eval()
    timed.load_state_dict(plain.state_dict(), strict=False)
    assert_close(logits(timed, level=0.7), logits(plain), rtol=0, atol=1e-6)


def test_a_trained_time_embedding_tells_levels_apart_and_each_slot_its_own() -> None:
    network = modernbert(time_conditioning=True).eval()
    torch.nn.init.normal_(network.time.outer.weight, std=0.1)
    levels = [logits(network, level=level) for level in (0.0, 1e-4, 0.01, 0.5, 0.99, 0.9999, 1.0)]
    for one, other in pairwise(levels):
        assert one.isfinite().all() and not torch.allclose(one, other, atol=1e-4)
    mixed = torch.full(IDS.shape, 0.5)
    mixed[1] = 0.01
    found = network(IDS, mixed, SEGMENT, EVERY).unflatten(0, IDS.shape)
    assert_close(found[0], levels[3].unflatten(0, IDS.shape)[0], rtol=1e-4, atol=1e-5)
    assert_close(found[1], levels[2].unflatten(0, IDS.shape)[1], rtol=1e-4, atol=1e-5)


def test_slots_of_one_level_share_one_vector_and_its_gradient() -> None:
    embedding: Any = modernbert(time_conditioning=True).time
    torch.nn.init.normal_(embedding.outer.weight, std=0.1)
    level = torch.tensor([[0.5, 0.5, 0.01, 0.5], [0.9, 0.01, 0.01, 0.9]])
    outer = torch.randn(2, 4, embedding.outer.weight.shape[0])
    found = []
    for vectors in (embedding(level), embedding.vectors(level)):
        found.append([vectors, *torch.autograd.grad((outer * vectors).sum(), [*embedding.parameters()])])
    assert_close(found[0], found[1])


def test_without_time_conditioning_the_level_is_not_read() -> None:
    network = modernbert().eval()
    assert torch.equal(logits(network, level=0.1), logits(network, level=0.9))
    assert "time" not in dict(network.named_children())


def test_a_hand_written_wave() -> None:
    """The log-odds of 1/2 are 0, so all sines are 0 and all cosines 1."""
    embedding: Any = modernbert(time_conditioning=True).time
    inner = embedding.inner
    waves = torch.cat([torch.zeros(32), torch.ones(32)])
    torch.nn.init.normal_(embedding.outer.weight)
    expected = embedding.outer(torch.nn.functional.silu(inner(waves)))
    assert_close(embedding(torch.tensor([[0.5]]))[0, 0], expected)
    assert everywhere(modernbert(), IDS, SEGMENT).shape[-1] == 61
