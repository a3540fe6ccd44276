"""The words every room speaks: what a vocabulary refuses, and how rows of packed documents are counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dllm_lightning.types import Canvas, Corrupted, InvalidTokenizer, Slots, Vocab, positions


class Tokenizer(SimpleNamespace):
    """As much of a Hugging Face tokenizer as a vocabulary asks for."""

    def __len__(self) -> int:
        return len(self.words)

    def get_vocab(self) -> dict[str, int]:
        return self.words


def tokenizer(**changes: Any) -> Tokenizer:
    words = {"[CLS]": 0, "a": 1, "b": 2, "[unused0]": 3, "[SEP]": 4, "[MASK]": 5, "[PAD]": 6, "c": 7}
    fields: dict[str, Any] = {
        "words": words,
        "name_or_path": "small",
        "mask_token_id": 5,
        "pad_token_id": 6,
        "eos_token_id": None,
        "sep_token_id": 4,
        "all_special_ids": [4, 5, 6],
        "added_tokens_decoder": {0: SimpleNamespace(special=True), 7: SimpleNamespace(special=False)},
    }
    return Tokenizer(**{**fields, **changes})


def test_a_vocabulary_knows_which_ids_noise_may_use() -> None:
    vocab = Vocab.of(tokenizer(), width=10)
    assert (vocab.size, vocab.length, vocab.mask_id, vocab.pad_id, vocab.eos_id) == (10, 8, 5, 6, 4)
    assert vocab.noise_ids.tolist() == [1, 2, 7]
    assert Vocab.of(tokenizer()).size == 8


def test_an_answer_ends_with_eos_and_otherwise_sep_which_also_pads_where_nothing_else_does() -> None:
    assert Vocab.of(tokenizer(eos_token_id=7)).eos_id == 7
    assert Vocab.of(tokenizer(pad_token_id=None)).pad_id == 4


def test_ids_with_gaps_between_them_are_all_believed_possible() -> None:
    words = {"a": 0, "[MASK]": 5, "[SEP]": 4, "late": 11}
    vocab = Vocab.of(tokenizer(words=words, all_special_ids=[4, 5]))
    assert vocab.length == vocab.size == 12
    with pytest.raises(
        InvalidTokenizer, match=r"'small' has ids up to 11, but the network has only 8 logits.*at least 12"
    ):
        Vocab.of(tokenizer(words=words), width=8)


def test_a_tokenizer_without_a_mask_or_an_end_is_refused() -> None:
    with pytest.raises(InvalidTokenizer, match="'small' has no mask token"):
        Vocab.of(tokenizer(mask_token_id=None))
    with pytest.raises(InvalidTokenizer, match=r"'small' has .* sep token, so an answer could not end"):
        Vocab.of(tokenizer(sep_token_id=None))


PACKED = torch.tensor([[0, 0, 1, 1, 1, 2, 3, 3, 0], [1, 1, 2, 2, 2, 2, 0, 0, 0]])
EDITABLE = torch.tensor([[0, 0, 0, 1, 1, 0, 1, 0, 0], [1, 1, 0, 0, 0, 1, 0, 0, 0]]).bool()
CANVAS = Canvas(torch.arange(18).reshape(2, 9), EDITABLE, PACKED)


def test_positions_restart_with_each_document() -> None:
    assert positions(PACKED).tolist() == [[0, 1, 0, 1, 2, 0, 0, 1, 0], [0, 1, 0, 1, 2, 3, 0, 1, 2]]
    assert torch.equal(CANVAS.position(), positions(PACKED))


def test_there_are_as_many_heads_as_documents() -> None:
    assert CANVAS.heads().nonzero().tolist() == [[0, 2], [0, 5], [0, 6], [1, 0], [1, 2]]


def test_slots_are_counted_within_their_document() -> None:
    assert CANVAS.per_document(EDITABLE).tolist() == [[0, 0, 2, 2, 2, 0, 1, 1, 0], [2, 2, 1, 1, 1, 1, 0, 0, 0]]
    length = torch.ones_like(EDITABLE)
    assert CANVAS.per_document(length & (PACKED > 0))[:, 2].tolist() == [3, 4]


def test_slots_point_back_to_where_they_came_from() -> None:
    t = torch.linspace(0, 1, 18).reshape(2, 9)
    slots = Corrupted(CANVAS, CANVAS.ids + 1, t, EDITABLE).slots()
    assert slots.at.tolist() == slots.x0.tolist() == [3, 4, 6, 9, 10, 14]
    assert torch.equal(slots.x_t, slots.x0 + 1)
    assert torch.equal(slots.t, t.flatten()[slots.at])
    middle = slots.chunk(2, 4)
    assert isinstance(middle, Slots) and middle.at.tolist() == [6, 9]
