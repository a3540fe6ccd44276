"""ModernBERT reads a document the same way wherever it stands: alone, beside padding, or packed with others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import AttentionInterface

from dllm_lightning.backbone import InvalidBackbone, ModernBert
from dllm_lightning.backbone.modernbert import positions
from tests.backbone.nets import BERT, K, documents, everywhere, masked_lm, modernbert, per_document, rows

LENGTHS = (5, 21, 1, 13, 9, 2)  # several are longer than a window of 4 slots to either side
DOCUMENTS = documents(LENGTHS)
LAYOUTS = {
    "padded on the right": rows([[d] for d in DOCUMENTS], 24),
    "padded on the left": rows([[d] for d in DOCUMENTS], 28, left=7),
    "packed": rows([DOCUMENTS[:3], DOCUMENTS[3:]], 27),
    "packed between padding": rows([DOCUMENTS[:3], DOCUMENTS[3:]], 40, left=4),
    "packed into one full row": rows([DOCUMENTS], sum(LENGTHS)),
}


def hugging_face(backbone: ModernBert, ids: Tensor, mask: Tensor) -> Tensor:
    """The logits of the network's own forward, with the masks that it makes of a plain 2-D one."""
    return backbone.network(input_ids=ids, attention_mask=mask.long()).logits


@pytest.fixture(scope="module")
def backbone() -> ModernBert:
    return modernbert().eval()


@pytest.fixture(scope="module")
def alone(backbone: ModernBert) -> list[Tensor]:
    """What Hugging Face's own forward says of each document by itself."""
    with torch.no_grad():
        return [hugging_face(backbone, d[None], torch.ones(1, len(d)))[0] for d in DOCUMENTS]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@torch.no_grad()
def test_a_document_has_the_same_logits_alone_padded_and_packed(
    backbone: ModernBert, alone: list[Tensor], layout: tuple[Tensor, Tensor]
) -> None:
    for ours, theirs in zip(per_document(backbone, *layout), alone, strict=True):
        assert_close(ours, theirs, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_padded_batch_has_the_logits_of_hugging_faces_own_forward(backbone: ModernBert) -> None:
    ids, segment = LAYOUTS["padded on the right"]
    theirs = hugging_face(backbone, ids, segment > 0)
    assert_close(everywhere(backbone, ids, segment)[segment > 0], theirs[segment > 0], rtol=0, atol=1e-5)


@torch.no_grad()
def test_eager_attention_agrees_with_sdpa(backbone: ModernBert) -> None:
    eager = modernbert(attention="eager").eval()
    for layout in LAYOUTS.values():
        for ours, theirs in zip(per_document(eager, *layout), per_document(backbone, *layout), strict=True):
            assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_no_gradient_crosses_from_one_document_to_its_neighbour() -> None:
    backbone = modernbert().eval()
    ids, segment = rows([DOCUMENTS[:3]], 30)
    embedded = backbone.network.model.embeddings.tok_embeddings.weight
    at = (segment.flatten() == 2).nonzero().squeeze(-1)
    backbone(ids, torch.zeros(ids.shape), segment, at).square().sum().backward()
    others = set(torch.cat([DOCUMENTS[0], DOCUMENTS[2]]).tolist()) - set(DOCUMENTS[1].tolist())
    decoder = torch.autograd.grad(
        backbone(ids, torch.zeros(ids.shape), segment, at).square().sum(), backbone.network.decoder.weight
    )[0]
    assert embedded is backbone.network.decoder.weight  # tied: what the decoder gives is in both
    with torch.no_grad():
        states = backbone.encode(ids, torch.zeros(ids.shape), segment).flatten(0, 1)[at]
    head = torch.autograd.grad(backbone.head(states).square().sum(), backbone.network.decoder.weight)[0]
    assert others
    assert_close((decoder - head)[sorted(others)], torch.zeros(len(others), 32), rtol=0, atol=1e-5)
    assert (decoder - head)[DOCUMENTS[1]].abs().max() > 1e-3


@torch.no_grad()
def test_logits_at_chosen_slots_are_all_logits_gathered(backbone: ModernBert) -> None:
    ids, segment = LAYOUTS["packed"]
    full = everywhere(backbone, ids, segment).flatten(0, 1)
    at = torch.tensor([40, 3, 3, 17, 0])
    assert_close(backbone(ids, torch.zeros(ids.shape), segment, at), full[at])
    assert backbone(ids, torch.zeros(ids.shape), segment, at[:0]).shape == (0, K)


def blockwise(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, scaling: float, **options: Any
) -> tuple[Tensor, None]:
    """What a variable-length kernel does, slowly: documents between the given bounds, and windows, by a dense mask.

    As in flash attention, a `sliding_window` of w lets a slot see those at distance less than w.
    """
    assert mask is None
    bounds, length = options["cu_seq_lens_q"], query.shape[2]
    assert torch.equal(bounds, options["cu_seq_lens_k"]) and bounds[-1] == length == key.shape[2]
    assert options["max_length_q"] == options["max_length_k"] == int(bounds.diff().max())
    document = torch.bucketize(torch.arange(length), bounds[1:], right=True)
    allowed = document[:, None] == document[None, :]
    if (window := options.get("sliding_window")) is not None:
        place = torch.arange(length)
        allowed &= (place[:, None] - place[None, :]).abs() < window
    scores = (query @ key.transpose(-1, -2) * scaling).masked_fill(~allowed, -torch.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2), None


@torch.no_grad()
def test_unpadded_rows_for_flash_attention_have_the_same_logits(
    backbone: ModernBert, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(AttentionInterface._global_mapping, "flash_attention_2", blockwise)
    monkeypatch.setattr(backbone.network.config, "_attn_implementation", "sdpa")
    sdpa = {name: per_document(backbone, *layout) for name, layout in LAYOUTS.items()}
    monkeypatch.setattr(backbone, "attention", "flash_attention_2")
    monkeypatch.setattr(backbone.network.config, "_attn_implementation", "flash_attention_2")
    for name, layout in LAYOUTS.items():
        for ours, theirs in zip(per_document(backbone, *layout), sdpa[name], strict=True):
            assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_block_masks_for_flex_attention_say_what_the_dense_masks_say(backbone: ModernBert) -> None:
    for _, segment in LAYOUTS.values():
        blocks, dense = backbone._block_masks(segment), backbone._dense_masks(segment)
        b, q, k = (torch.arange(size) for size in (len(segment), segment.shape[1], segment.shape[1]))
        assert blocks.keys() == dense.keys() == {"full_attention", "sliding_attention"}
        for name, block in blocks.items():
            said = block.mask_mod(b[:, None, None], torch.tensor(0), q[None, :, None], k[None, None, :])
            assert torch.equal(said, dense[name][:, 0])


def test_dense_masks_leave_no_slot_without_anything_to_see(backbone: ModernBert) -> None:
    for _, segment in LAYOUTS.values():
        for mask in backbone._dense_masks(segment).values():
            assert mask.any(-1).all()


def test_positions_restart_with_each_document() -> None:
    assert positions(torch.tensor([[0, 0, 1, 1, 1, 2, 0]])).tolist() == [[0, 1, 0, 1, 2, 0, 0]]


def test_another_network_in_its_place_is_refused(tmp_path: Any) -> None:
    masked_lm(BERT).network.save_pretrained(tmp_path)
    with pytest.raises(InvalidBackbone, match=r"is a bert, not a ModernBERT\. Use backbone=masked_lm"):
        ModernBert(pretrained=str(tmp_path))
