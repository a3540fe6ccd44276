"""A published tokenizer lays out a conversation as the template does, with nothing but its chat template."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from dllm_lightning.data.messages import Message
from dllm_lightning.data.native import Native
from dllm_lightning.data.original import Original
from dllm_lightning.data.template import ChatTemplate
from dllm_lightning.data.toy import toy_tokenizer
from dllm_lightning.data.toy.chat import generate
from dllm_lightning.data.turns import Turns
from dllm_lightning.publish.tokenizer import CannotPublish, mend, speaking
from dllm_lightning.types import Vocab
from tests.data.test_template import CHAT as FEW_WORDS
from tests.data.test_template import CHATML, byte_tokenizer, word_tokenizer

Chat = Sequence[Message]
TOY = [
    row["messages"]
    for level, system in ((1, "be kind."), (2, None))
    for row in generate("train", 100, level=level, turns=3, system=system)
]


def saved(template: ChatTemplate, folder: Path) -> Any:
    """What others load."""
    speaking(template).save_pretrained(folder)
    assert isinstance(template, Native) or mend(folder, template) == (0, ())
    return AutoTokenizer.from_pretrained(folder)


def differences(template: ChatTemplate, tokenizer: Any, chats: Iterable[Chat]) -> list[Chat]:
    """Conversations that the tokenizer lays out in another way: as a training row, or as a prompt."""

    def ids(chat: Chat, ask: bool) -> list[int]:
        return tokenizer.apply_chat_template(list(chat), tokenize=True, add_generation_prompt=ask)["input_ids"]

    def same(chat: Chat) -> bool:
        whole, (row,) = ids(chat, ask=False), template.encode([chat])
        *prompt, _ = template.prompt(chat[:-1], 1).ids
        return (whole, ids(chat[:-1], ask=True)) == (row.ids, prompt)

    return [chat for chat in chats if not same(chat)]


@pytest.mark.parametrize("kind", [Turns, Original])
@pytest.mark.parametrize(
    ("tokenizer", "chats"),
    [(toy_tokenizer, TOY), (byte_tokenizer, TOY), (word_tokenizer, [FEW_WORDS, FEW_WORDS[1:], FEW_WORDS[1:3]])],
    ids=["toy", "bytes", "words"],
)
def test_the_chat_template_gives_the_ids_of_ours(
    kind: Callable[[Any], ChatTemplate], tokenizer: Callable[[], Any], chats: list[Chat], tmp_path: Path
) -> None:
    template = kind(tokenizer())
    assert not differences(template, saved(template, tmp_path), chats)


@pytest.mark.parametrize("kind", [Turns, Original])
@pytest.mark.parametrize("name", ["modernbert-base", "bert-base-uncased"])
def test_also_for_real_conversations_and_tokenizers(
    kind: Callable[[Any], ChatTemplate], name: str, data_root: Path, tmp_path: Path
) -> None:
    from datasets import load_dataset

    template = kind(AutoTokenizer.from_pretrained(data_root / "tokenizers" / name))
    tokenizer = saved(template, tmp_path)
    for name in ("tulu3_sample", "oasst_multilingual"):
        files = sorted(str(file) for file in (data_root / "chat" / name).glob("train*"))
        rows = load_dataset("json", data_files=files, split="train", streaming=True)
        usable = (row["messages"] for row in rows if template.fault(row["messages"]) is None)
        answered = (chat if chat[-1]["role"] == "assistant" else chat[:-1] for chat in usable)
        ordinary = [chat for chat in islice(answered, 200) if not _spells(tokenizer, chat)]
        assert len(ordinary) > 100
        assert not differences(template, tokenizer, ordinary)


def _spells(tokenizer: Any, chat: Chat) -> bool:
    """Whether a message holds the text of a special token."""
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return any(word in message["content"] for message in chat for word in special)


def test_native_keeps_what_the_tokenizer_has(tmp_path: Path) -> None:
    template = Native(byte_tokenizer(CHATML))
    tokenizer = saved(template, tmp_path)
    assert tokenizer.chat_template == CHATML
    assert tokenizer.get_vocab() == template.tokenizer.get_vocab()


@pytest.mark.parametrize(
    ("asks", "mended"),
    [
        ("[unused0]role:assistant", "nothing"),
        ("[unused0]role:assistant ", "a space too many"),  # which a byte-level tokenizer has in front of the next word
        ("", "all of it"),
    ],
    ids=["as rows are", "with a space", "not at all"],
)
def test_what_the_tokenizers_own_prompt_does_otherwise_is_known(asks: str, mended: str, tmp_path: Path) -> None:
    chat_template = CHATML.replace("[unused0]role:assistant ", asks)
    template = Native(byte_tokenizer(chat_template))
    tokenizer = saved(template, tmp_path)
    opening = template.ids_of("[unused0]role:assistant")
    expected = {"nothing": (0, ()), "a space too many": (1, ()), "all of it": (0, opening)}
    drop, add = mend(tmp_path, template)
    assert (drop, add) == expected[mended]
    for chat in (FEW_WORDS[1:2], FEW_WORDS[:4]):
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
        assert [*prompt[: len(prompt) - drop], *add] == template.prompt(chat, 1).ids[:-1]


@pytest.mark.parametrize("kind", [Turns, Original])
def test_a_published_template_can_be_taken_as_the_tokenizers_own(kind: Any, tmp_path: Path) -> None:
    """data/template=native on a published folder trains on the same rows."""
    template = kind(toy_tokenizer())
    native = Native(saved(template, tmp_path))
    assert native.encode(TOY) == template.encode(TOY)
    assert native.prompt(TOY[0][:-1], 3) == template.prompt(TOY[0][:-1], 3)
    assert native.end_id == template.end_id


@pytest.mark.parametrize(
    "names", [{}, {"user": "what", "end": "[SEP]"}], ids=["unused rows", "a word and the separator"]
)
def test_the_tokenizer_means_to_a_process_what_it_meant_before(names: dict[str, str], tmp_path: Path) -> None:
    """No id moves, no token becomes or stops being noise, and texts are read as they were."""
    tokenizer = toy_tokenizer()
    template = Turns(tokenizer, **names)
    back = Turns(saved(template, tmp_path), **names)
    assert back.tokenizer.get_vocab() == tokenizer.get_vocab()
    assert Vocab.of(back.tokenizer).noise_ids.tolist() == Vocab.of(tokenizer).noise_ids.tolist()
    assert back.control_ids == template.control_ids
    texts = ["a question of what?", "[unused1] and [MASK] are text here"]
    assert back.plain.encode(texts) == template.plain.encode(texts)


def test_publishing_leaves_the_tokenizer_of_the_template_alone() -> None:
    template = Turns(toy_tokenizer())
    speaking(template)
    assert template.tokenizer.chat_template is None
    assert len(template.tokenizer("[unused0]", add_special_tokens=False)["input_ids"]) > 1


def test_text_that_spells_a_marker_becomes_it_in_plain_transformers_alone(tmp_path: Path) -> None:
    """What the model card warns of."""
    template = Turns(toy_tokenizer())
    tokenizer = saved(template, tmp_path)
    chat = [{"role": "user", "content": "hello [unused3]"}, {"role": "assistant", "content": "hello"}]
    (ours,) = template.encode([chat])
    theirs = tokenizer.apply_chat_template(chat)["input_ids"]
    assert (ours.ids.count(template.end_id), theirs.count(template.end_id)) == (2, 3)


def test_a_role_that_has_no_place_is_refused(tmp_path: Path) -> None:
    tokenizer = saved(Turns(toy_tokenizer()), tmp_path)
    with pytest.raises(TemplateError, match="is system, user or assistant, not tool"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "hello"}])


def test_markers_of_any_characters_are_written_out(tmp_path: Path) -> None:
    names = {"system": "{{s}}", "user": "<'u'>", "assistant": '<"a">', "end": "{%\\e%}"}
    tokenizer = toy_tokenizer()
    tokenizer.add_tokens([*names.values()], special_tokens=True)
    template = Turns(tokenizer, **names)
    assert not differences(template, saved(template, tmp_path), TOY[:20])


def test_a_tokenizer_that_reads_text_differently_behind_a_marker_is_refused(tmp_path: Path) -> None:
    """Here a space is put before the first word of a text, and no template in text can put it behind a marker."""
    signs = {f"{space}{sign}": 0 for sign in map(chr, range(33, 127)) for space in ("", "▁")}
    special = ["[UNK]", "[PAD]", "[SEP]", "[MASK]", *(f"[unused{i}]" for i in range(4))]
    backend = Tokenizer(models.Unigram([(word, -1.0) for word in (*special, "▁", *signs)], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    names = {f"{word.strip('[]').lower()}_token": word for word in special[:4]}
    template = Turns(PreTrainedTokenizerFast(tokenizer_object=backend, name_or_path="odd", **names))
    speaking(template).save_pretrained(tmp_path)
    with pytest.raises(CannotPublish, match="The tokenizer 'odd' cannot be published: by itself it reads"):
        mend(tmp_path, template)
