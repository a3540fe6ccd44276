"""The laws of the built-in tokenizer: text survives it, nothing typed is unknown, nothing typed is a control id."""

from __future__ import annotations

from typing import Any

import pytest

from dllm_lightning.data.toy import LEVELS, generate, toy_tokenizer
from dllm_lightning.types import Vocab


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return toy_tokenizer()


def plain(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids


@pytest.mark.parametrize("level", LEVELS)
def test_every_answer_comes_back_from_its_ids(tokenizer: Any, level: int) -> None:
    for row in generate("train", 500, level=level):
        answer = row["messages"][-1]["content"]
        assert tokenizer.decode(plain(tokenizer, answer)) == answer


def test_every_word_of_the_chat_is_one_piece_and_a_number_is_its_digits(tokenizer: Any) -> None:
    for row in generate("train", 500, level=LEVELS):
        for message in row["messages"]:
            pieces = tokenizer.convert_ids_to_tokens(plain(tokenizer, message["content"]))
            assert all(piece.removeprefix("##").isdecimal() for piece in pieces if piece.startswith("##"))
    assert tokenizer.tokenize("137") == ["1", "##3", "##7"]


def test_what_a_person_types_is_read_sensibly(tokenizer: Any) -> None:
    assert plain(tokenizer, "What is 3+4?") == plain(tokenizer, "what  is 3 + 4 ?")
    assert tokenizer.tokenize("What is 3+14?") == ["what", "is", "3", "+", "1", "##4", "?"]


def test_unknown_words_are_spelt(tokenizer: Any) -> None:
    assert tokenizer.decode(plain(tokenizer, "Zebra, Café: isn't it?")) == "zebra, cafe : isn ' t it?"
    assert tokenizer.unk_token_id not in plain(tokenizer, "Zebra 'quoted' (x) = 12%, a_b @ c #1 & $2 <b> | \"d\"")


@pytest.mark.parametrize("text", ["[MASK]", "[SEP] [PAD]", "[unused0]", "x[CLS]y[UNK]", "[MASK"])
def test_special_text_stays_text(tokenizer: Any, text: str) -> None:
    controls = {*tokenizer.all_special_ids, *(tokenizer.convert_tokens_to_ids(f"[unused{i}]") for i in range(8))}
    assert controls.isdisjoint(plain(tokenizer, text))


def test_it_serves_a_diffusion_model(tokenizer: Any) -> None:
    vocab = Vocab.of(tokenizer)
    assert vocab.size == len(tokenizer) < 400
    special = {vocab.mask_id, vocab.pad_id, vocab.eos_id}
    assert len(special) == 3
    assert special.isdisjoint(vocab.noise_ids.tolist())


def test_it_is_the_same_after_saving_and_loading(tokenizer: Any, tmp_path: Any) -> None:
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = "Which is larger, 13 or 9? Zebra [MASK]"
    assert plain(again, text) == plain(tokenizer, text)
    assert again.decode(plain(again, "apple, pear and plum")) == "apple, pear and plum"
    assert again.mask_token_id == tokenizer.mask_token_id
