"""Other masked language models: their own logits, one document per row, and a clear word where they cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from dllm_lightning.backbone import CannotPack, InvalidBackbone, MaskedLM
from tests.backbone.nets import BERT, ROBERTA, documents, everywhere, masked_lm, per_document, rows

every = pytest.mark.parametrize("config", [BERT, ROBERTA], ids=lambda config: config["model_type"])
DOCUMENTS = documents((5, 21, 1, 13))


@every
@torch.no_grad()
def test_a_published_folder_has_the_logits_of_hugging_faces_own_forward(tmp_path: Path, config: dict[str, Any]) -> None:
    masked_lm(config).network.save_pretrained(tmp_path)
    backbone = MaskedLM(pretrained=str(tmp_path)).eval()
    ids, segment = rows([[d] for d in DOCUMENTS], 24, pad_id=config["pad_token_id"])
    theirs = backbone.network(input_ids=ids, attention_mask=(segment > 0).long()).logits
    ours = everywhere(backbone, ids, segment)
    assert_close(ours[segment > 0], theirs[segment > 0], rtol=0, atol=1e-5)
    at = torch.tensor([3, 25, 40])
    assert_close(backbone(ids, torch.zeros(ids.shape), segment, at), ours.flatten(0, 1)[at])


@every
@torch.no_grad()
def test_a_document_has_the_same_logits_alone_and_padded_at_either_end(config: dict[str, Any]) -> None:
    backbone, pad_id = masked_lm(config).eval(), config["pad_token_id"]
    alone = [backbone.network(input_ids=d[None]).logits[0] for d in DOCUMENTS]
    for left in (0, 7):
        layout = rows([[d] for d in DOCUMENTS], 30, left=left, pad_id=pad_id)
        for ours, theirs in zip(per_document(backbone, *layout), alone, strict=True):
            assert_close(ours, theirs, rtol=0, atol=1e-5)


@every
def test_packed_rows_are_refused_by_name(config: dict[str, Any]) -> None:
    layout = rows([DOCUMENTS[:2]], 30, pad_id=config["pad_token_id"])
    with pytest.raises(CannotPack, match=r"ForMaskedLM cannot keep packed documents apart\. Use data\.packing=false"):
        everywhere(masked_lm(config), *layout)


@every
def test_rows_longer_than_the_table_of_positions_are_refused(config: dict[str, Any]) -> None:
    backbone = masked_lm(config)
    everywhere(backbone, *rows([documents((48,))], 48, pad_id=config["pad_token_id"]))
    with pytest.raises(InvalidBackbone, match=r"reads 48 slots at most, and a row has 49\. Choose a smaller"):
        everywhere(backbone, *rows([documents((48,))], 49, pad_id=config["pad_token_id"]))


@every
def test_every_parameter_learns(config: dict[str, Any]) -> None:
    """Chunked, and with the embedding tied to the head."""
    backbone = masked_lm(config, chunk=3).double()
    ids, segment = rows([[d] for d in DOCUMENTS], 24, pad_id=config["pad_token_id"])
    at = torch.arange(0, 96, 7)
    backbone(ids, torch.zeros(ids.shape), segment, at, score=lambda x, a, b: -x.log_softmax(-1)[:, :1])[0].backward()
    ours = {name: p.grad for name, p in backbone.named_parameters()}
    backbone.zero_grad()
    backbone(ids, torch.zeros(ids.shape), segment, at).log_softmax(-1)[:, 0].sum().neg().backward()
    assert_close(ours, {name: p.grad for name, p in backbone.named_parameters()})


@pytest.mark.parametrize("model_type", ["distilbert", "electra"])
def test_a_network_with_no_whole_head_is_refused(model_type: str) -> None:
    sizes = BERT | {"model_type": model_type, "dim": 32, "hidden_dim": 48, "n_layers": 1, "n_heads": 4}
    with pytest.raises(InvalidBackbone, match=r"cannot be asked about chosen slots\. Use ModernBERT, BERT or RoBERTa"):
        masked_lm(sizes)


def test_a_head_that_is_only_half_of_the_way_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dllm_lightning.backbone.masked_lm._HEADS", ("vocab_projector",))
    sizes = {"model_type": "distilbert", "vocab_size": 61, "dim": 32, "hidden_dim": 48, "n_layers": 1, "n_heads": 4}
    with pytest.raises(InvalidBackbone, match="does more than its head shows"):
        masked_lm(sizes)


def test_the_layers_are_found_for_sharding() -> None:
    assert len(masked_lm(BERT).layers) == len(masked_lm(ROBERTA).layers) == 2
