"""Nothing a user types becomes a control token, in any kind of tokenizer, and plain text comes back as it was."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from dllm_lightning.data.plain_text import PlainText
from dllm_lightning.data.turns import Turns
from dllm_lightning.types import InvalidTokenizer, Vocab

SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "<|padding|>", "<|endoftext|>", "</s>"]
UNUSED = [f"[unused{i}]" for i in range(6)]
LETTERS = ["[", "]", "M", "A", "S", "K", "x", "é", "Ġ", " ", "\n"]


def special_everywhere(backend: Tokenizer) -> PreTrainedTokenizerFast:
    """Every special word special, the unused rows added and searched for in normalised text, as ModernBERT has them."""
    backend.add_tokens([AddedToken(word, special=False, normalized=True) for word in UNUSED])
    backend.add_tokens([AddedToken("   ", special=False, normalized=True)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", sep_token="[SEP]", cls_token="[CLS]", pad_token="[PAD]"
    )
    tokenizer.add_special_tokens({"mask_token": AddedToken("[MASK]", lstrip=True, rstrip=True, special=True)})
    tokenizer.add_tokens([AddedToken(word, special=True) for word in SPECIAL[5:]])
    return tokenizer


def byte_level() -> PreTrainedTokenizerFast:
    vocabulary = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    # the last merge makes a control word
    merges = [("M", "A"), ("S", "K"), ("MA", "SK"), ("<", "/"), ("</", "s"), ("</s", ">")]
    vocabulary |= {"".join(pair): len(vocabulary) + i for i, pair in enumerate(merges)}
    backend = Tokenizer(models.BPE(vocabulary, merges))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return special_everywhere(backend)


def word_level() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *UNUSED, *LETTERS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return special_everywhere(backend)


def word_piece() -> PreTrainedTokenizerFast:
    pieces = [*SPECIAL, *UNUSED, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    backend = Tokenizer(models.WordPiece({word: i for i, word in enumerate(pieces)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.WordPiece()
    return special_everywhere(backend)


def unigram() -> PreTrainedTokenizerFast:
    pieces = [(word, -1.0) for word in (*SPECIAL, *UNUSED)] + [(letter, -5.0) for letter in ["▁", *LETTERS]]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return special_everywhere(backend)


KINDS = {kind.__name__: Turns(kind()) for kind in (byte_level, word_level, word_piece, unigram)}
NEARLY = ["[MA", "SK]", " [MASK] ", "[mask]", "［MASK］", "\u00a0", "   ", "e\u0301"]
typed = st.lists(st.sampled_from([*SPECIAL, *UNUSED, *LETTERS, *NEARLY]) | st.text(max_size=5), max_size=8).map("".join)


@pytest.mark.parametrize("template", KINDS.values(), ids=KINDS.keys())
@settings(max_examples=300, deadline=None)
@given(text=typed)
def test_no_text_gives_a_control_id(template: Turns, text: str) -> None:
    (ids,) = template.plain.encode([text])
    assert template.control_ids.isdisjoint(ids)


@pytest.mark.parametrize("template", KINDS.values(), ids=KINDS.keys())
def test_every_special_word_would_have_been_one(template: Turns) -> None:
    for word in (*SPECIAL[1:], *UNUSED):
        (control,) = template.tokenizer(word, add_special_tokens=False)["input_ids"]
        assert control in template.control_ids
        assert control not in template.plain.encode([word])[0]


@settings(max_examples=300, deadline=None)
@given(text=typed)
def test_byte_level_text_comes_back_as_it_was_up_to_its_canonical_form(text: str) -> None:
    template = KINDS["byte_level"]
    assert template.answer(template.plain.encode([text])[0]) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("template", KINDS.values(), ids=KINDS.keys())
def test_text_without_control_words_keeps_its_ids(template: Turns) -> None:
    for text in ["MASK", "K A S M", "x   x é", "[ x ]", "[MA SK]"]:
        assert template.plain.encode([text])[0] == template.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_word_that_the_tokenizer_does_not_know_is_content() -> None:
    template = KINDS["word_level"]
    unknown = template.tokenizer.unk_token_id
    assert template.plain.encode(["unheard of"])[0] == [unknown, unknown]
    assert template.plain.decode([unknown]) == "[UNK]"


def test_added_tokens_that_are_ordinary_keep_their_ids_when_those_before_them_go() -> None:
    backend = KINDS["unigram"].tokenizer
    backend = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(backend.backend_tokenizer.to_str()))
    backend.add_tokens(["<gone>", "<stays>"])
    gone, stays = backend.convert_tokens_to_ids(["<gone>", "<stays>"])
    plain = PlainText(backend.backend_tokenizer, frozenset({gone}))
    assert plain.encode(["<stays>"]) == [[stays]]
    assert gone not in plain.encode(["<gone>"])[0]
    assert plain.decode([stays]) == "<stays>"


def test_a_tokenizer_whose_unknown_word_is_its_end_is_refused_when_it_happens() -> None:
    backend = Tokenizer(models.WordLevel({"[END]": 0, "x": 1}, unk_token="[END]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with pytest.raises(InvalidTokenizer, match=r"reads the ordinary text 'x y' as control tokens \[0\]"):
        PlainText(backend, frozenset({0})).encode(["x", "x y"])


@pytest.fixture(scope="module")
def modernbert(data_root: Path) -> Turns:
    return Turns(AutoTokenizer.from_pretrained(data_root / "tokenizers" / "modernbert-base"))


def test_in_modernbert_no_control_word_survives_and_all_text_comes_back(modernbert: Turns) -> None:
    words = [token.content for token in modernbert.tokenizer.added_tokens_decoder.values()]

    @settings(max_examples=500, deadline=None)
    @given(st.lists(st.sampled_from(words) | typed | st.text(max_size=20), max_size=6).map("".join))
    def law(text: str) -> None:
        (ids,) = modernbert.plain.encode([text])
        assert modernbert.control_ids.isdisjoint(ids)
        assert modernbert.plain.decode(ids) == unicodedata.normalize("NFC", text)

    law()


def test_in_modernbert_every_id_is_content_or_control_and_no_third_thing(modernbert: Turns) -> None:
    noise_ids = Vocab.of(modernbert.tokenizer, width=50368).noise_ids.tolist()
    assert modernbert.control_ids | {*noise_ids, modernbert.tokenizer.unk_token_id} == set(range(50368))
    assert {1, 50279, 50281, 50282, 50283, 50284, *range(50285, 50368)} == modernbert.control_ids


def test_in_modernbert_the_markers_are_unused_rows_and_mask_eats_no_space(modernbert: Turns) -> None:
    rows = [{"role": "user", "content": "a [MASK] b"}, {"role": "assistant", "content": "[SEP] c"}]
    (document,) = modernbert.encode([rows])
    assert document.ids[:2] == [50281, 50286]  # [CLS] [unused1]
    assert document.ids[-1] == 50288  # [unused3]
    assert document.ids.count(50284) == 0 and document.ids.count(50282) == 0
    assert modernbert.plain.decode(document.ids) == "a [MASK] b[SEP] c"


@pytest.mark.parametrize("name", ["bert-base-uncased", "gpt2"])
def test_other_real_tokenizers_keep_control_words_out_too(data_root: Path, name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(data_root / "tokenizers" / name)
    tokenizer.add_special_tokens({"mask_token": "[MASK]", "sep_token": "[SEP]"})
    tokenizer.add_tokens([AddedToken(word, special=False) for word in UNUSED])
    template = Turns(tokenizer)
    (ids,) = template.plain.encode([" ".join((*SPECIAL, *UNUSED))])
    assert template.control_ids.isdisjoint(ids)
    assert template.plain.encode(["plain words"])[0] == tokenizer("plain words", add_special_tokens=False)["input_ids"]
