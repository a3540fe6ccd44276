"""Laws of the chat templates, on tokenizers small enough to write every id by hand."""

from __future__ import annotations

import copy
import pickle
import re

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dllm_lightning.data.messages import BadRow, validate, validate_prompt
from dllm_lightning.data.native import Native
from dllm_lightning.data.original import Original
from dllm_lightning.data.template import ChatTemplate, answer_spans
from dllm_lightning.data.turns import Turns
from dllm_lightning.types import InvalidTokenizer

UNK, CLS, SEP, MASK, PAD = range(5)
WORDS = ["[UNK]", "[CLS]", "[SEP]", "[MASK]", "[PAD]", "System", "User", "Assistant", ":", "be", "kind", "one", "two"]
WORDS += ["three", "four", "role", "[unused0]", "[unused1]", "[unused2]", "[unused3]"]
ID = {word: i for i, word in enumerate(WORDS)}

CHATML = (
    "{% for m in messages %}[unused0]role:{{ m['role'] }} {{ m['content'] | trim }}[SEP]\n{% endfor %}"
    "{% if add_generation_prompt %}[unused0]role:assistant {% endif %}"
)

CHAT = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two three"},
    {"role": "user", "content": "three"},
    {"role": "assistant", "content": "four"},
]


def word_tokenizer(chat_template: str | None = None, **special: str) -> PreTrainedTokenizerFast:
    """Words split at spaces and punctuation; the special tokens are known as words too, the hardest case."""
    backend = Tokenizer(models.WordLevel(ID, unk_token="[UNK]"))
    splits = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(":", "isolated")]
    backend.pre_tokenizer = pre_tokenizers.Sequence(splits)
    backend.add_tokens([AddedToken(f"[unused{i}]", special=False) for i in range(4)])
    names = {f"{word.strip('[]').lower()}_token": word for word in WORDS[:5]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **{**names, **special})
    tokenizer.chat_template = chat_template
    return tokenizer


def byte_tokenizer(chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """Bytes and a few merges, [MASK] that eats the space on its left: ModernBERT's kind, in 300 ids."""
    vocabulary = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [("Ġ", "t"), ("t", "w"), ("Ġt", "w"), ("Ġtw", "o")]
    for pair in merges:
        vocabulary["".join(pair)] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([AddedToken("    ", special=False), AddedToken("[unused7]", special=False)])
    backend.add_tokens([AddedToken(f"[unused{i}]", special=False) for i in range(4)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        mask_token=AddedToken("[MASK]", lstrip=True, special=True),
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def words(text: str) -> list[int]:
    return [ID[word] for word in text.split()]


def marked(ids: list[int], editable: list[bool]) -> list[int]:
    return [i for i, answer in zip(ids, editable, strict=True) if answer]


TEMPLATES = [Original, Turns, Native]
BOTH = [word_tokenizer, byte_tokenizer]


@pytest.fixture(params=TEMPLATES, ids=lambda template: template.__name__)
def template(request: pytest.FixtureRequest) -> ChatTemplate:
    return request.param(byte_tokenizer(CHATML))


def test_original_names_the_turns_in_words_and_closes_each_with_the_separator() -> None:
    (document,) = Original(word_tokenizer()).encode([CHAT[1:3]])
    assert document.ids == words("[CLS] User : one [SEP] Assistant : two three [SEP]")
    assert document.editable == [False] * 7 + [True] * 3


def test_original_lays_out_system_and_later_turns_in_the_same_way() -> None:
    (document,) = Original(word_tokenizer()).encode([CHAT])
    assert document.ids == words(
        "[CLS] System : be kind [SEP] User : one [SEP] Assistant : two three [SEP] "
        "User : three [SEP] Assistant : four [SEP]"
    )
    assert answer_spans(document.editable) == [(12, 15), (21, 23)]
    assert marked(*document) == words("two three [SEP] four [SEP]")


def test_original_ends_with_eos_where_there_is_no_separator() -> None:
    tokenizer = word_tokenizer(sep_token=None, cls_token=None, eos_token="[SEP]")
    (document,) = Original(tokenizer).encode([CHAT[1:3]])
    assert document.ids == words("User : one [SEP] Assistant : two three [SEP]")
    with pytest.raises(InvalidTokenizer, match="neither a sep nor an eos"):
        Original(word_tokenizer(sep_token=None))


def test_original_is_tokenised_like_running_text() -> None:
    tokenizer = byte_tokenizer()
    row = [{"role": "user", "content": "two"}, {"role": "assistant", "content": "two"}]
    (document,) = Original(tokenizer).encode([row])
    assert document.ids == tokenizer("[CLS]User: two[SEP]Assistant: two[SEP]", add_special_tokens=False)["input_ids"]


def test_turns_open_with_the_id_of_the_role_and_close_with_an_end_id() -> None:
    (document,) = Turns(word_tokenizer()).encode([CHAT])
    system, user, assistant, end = "[unused0]", "[unused1]", "[unused2]", "[unused3]"
    assert document.ids == words(
        f"[CLS] {system} be kind {end} {user} one {end} {assistant} two three {end} "
        f"{user} three {end} {assistant} four {end}"
    )
    assert marked(*document) == words(f"two three {end} four {end}")


def test_the_markers_of_turns_can_be_named_and_the_rest_takes_the_next_unused_rows() -> None:
    template = Turns(word_tokenizer(), user="[unused0]", end="[SEP]")
    (document,) = template.encode([CHAT])
    assert document.ids == words(
        "[CLS] [unused1] be kind [SEP] [unused0] one [SEP] [unused2] two three [SEP] "
        "[unused0] three [SEP] [unused2] four [SEP]"
    )
    assert template.end_id == SEP


def test_turns_refuse_markers_that_are_missing_or_not_different() -> None:
    with pytest.raises(InvalidTokenizer, match=r"user marker '<user>' is not a token"):
        Turns(word_tokenizer(), user="<user>")
    with pytest.raises(ValueError, match="four different tokens"):
        Turns(word_tokenizer(), user="[unused0]", assistant="[unused0]")
    with pytest.raises(ValueError, match="none of them the mask"):
        Turns(word_tokenizer(), end="[MASK]")
    bare = Tokenizer(models.WordLevel({"[UNK]": 0, "[MASK]": 1}, unk_token="[UNK]"))
    with pytest.raises(InvalidTokenizer, match="no unused rows to mark system, user, assistant, end"):
        Turns(PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="[UNK]", mask_token="[MASK]"))


def test_native_renders_the_tokenizers_own_template_and_stops_at_the_last_answers_end() -> None:
    (document,) = Native(word_tokenizer(CHATML)).encode([CHAT[1:]])
    turn = "[unused0] role : [UNK]"  # "user" and "assistant" are not among the words
    assert document.ids == words(f"{turn} one [SEP] {turn} two three [SEP] {turn} three [SEP] {turn} four [SEP]")
    assert marked(*document) == words("two three [SEP] four [SEP]")


def test_native_gives_the_ids_of_the_rendered_text() -> None:
    tokenizer = byte_tokenizer(CHATML)
    (document,) = Native(tokenizer).encode([CHAT])
    rendered = tokenizer.apply_chat_template(CHAT, tokenize=False).removesuffix("\n")
    assert document.ids == tokenizer(rendered, add_special_tokens=False)["input_ids"]


def test_native_trims_contents_only_where_the_template_does() -> None:
    spaced = [{"role": "user", "content": "  one "}, {"role": "assistant", "content": "\n two  "}]
    trimmed, kept = Native(byte_tokenizer(CHATML)), Native(byte_tokenizer(CHATML.replace(" | trim", "")))
    assert trimmed.answer(marked(*trimmed.encode([spaced])[0])) == "two"
    assert kept.answer(marked(*kept.encode([spaced])[0])) == "\n two  "


def test_native_counts_text_between_answer_and_end_as_part_of_the_end() -> None:
    template = Native(byte_tokenizer("{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }} ::[SEP]{% endfor %}"))
    (document,) = template.encode([CHAT[1:3]])
    answer = marked(*document)
    assert answer == [*template.plain.encode(["two three"])[0], *template.plain.encode([" ::"])[0], template.end_id]
    assert template.answer(answer) == "two three"


def test_native_treats_added_tokens_of_its_template_as_control_even_when_they_are_not_special() -> None:
    template = Native(word_tokenizer(CHATML))
    assert ID["[unused0]"] in template.control_ids
    tokenizer = word_tokenizer(CHATML.replace("[unused0]", "<turn>"))
    tokenizer.add_tokens([AddedToken("<turn>", special=False)])
    assert tokenizer.convert_tokens_to_ids("<turn>") in Native(tokenizer).control_ids


@pytest.mark.parametrize(
    ("chat_template", "sentence"),
    [
        (None, "has no chat template. Take data/template=turns"),
        ("{% for m in messages %}{{ m['content'] }}:{% endfor %}", "writes no special token after an answer"),
        ("{% for m in messages %}{{ m['content'] }}{% if loop.last %}[SEP]{% endif %}{% endfor %}", "no special token"),
        (
            "{% for m in messages %}{{ m['content'] }}{{ '[SEP]' if loop.last else '[CLS]' }}{% endfor %}",
            "ends answers differently",
        ),
        ("{{ messages[-1]['content'] }}[SEP]", "does not write every message once and in order"),
        ("{% if true %}{{ raise_exception('no') }}{% endif %}", "refuses these roles"),
        (
            "{% for m in messages %}{{ 'one' if loop.last }}{{ m['content'] }}[SEP]{% endfor %}",
            "rewrites earlier turns, so take answers=last",
        ),
    ],
)
def test_native_refuses_a_template_it_cannot_follow(chat_template: str | None, sentence: str) -> None:
    with pytest.raises(InvalidTokenizer, match=sentence):
        Native(word_tokenizer(chat_template))


def test_native_follows_a_template_that_rewrites_earlier_turns_when_only_the_last_answer_is_trained() -> None:
    rewriting = "{% for m in messages %}{{ 'one ' if loop.last }}{{ m['content'] }}[SEP]{% endfor %}"
    template = Native(word_tokenizer(rewriting), answers="last")
    (document,) = template.encode([CHAT[1:]])
    assert document.ids == words("one [SEP] two three [SEP] three [SEP] one four [SEP]")
    assert marked(*document) == words("four [SEP]")
    assert template.prompt(CHAT[1:4], 1).ids == [*document.ids[:-2], MASK]


def test_native_follows_a_template_that_writes_the_system_turn_into_the_first_question() -> None:
    merging = (
        "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[CLS]' }}"
        "{% if loop.index0 == 1 %}{{ messages[0]['content'] + ' : ' }}{% endif %}{{ m['content'] }}"
        "{% elif m['role'] == 'assistant' %}{{ '[unused0]' + m['content'] + '[SEP]' }}{% endif %}{% endfor %}"
    )
    (document,) = Native(word_tokenizer(merging)).encode([CHAT])
    assert document.ids == words("[CLS] be kind : one [unused0] two three [SEP] [CLS] three [unused0] four [SEP]")
    assert marked(*document) == words("two three [SEP] four [SEP]")


def test_native_reports_roles_that_its_template_refuses_as_a_bad_row() -> None:
    no_system = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}" + CHATML
    template = Native(word_tokenizer(no_system))
    assert template.fault(CHAT) == "the chat template refuses these roles"
    assert template.fault(CHAT[1:]) is None


def test_the_last_answer_alone_can_be_trained(template: ChatTemplate) -> None:
    last = type(template)(template.tokenizer, answers="last")
    (every,), (only,) = template.encode([CHAT]), last.encode([CHAT])
    assert every.ids == only.ids
    assert answer_spans(only.editable) == answer_spans(every.editable)[-1:]
    with pytest.raises(ValueError, match="answers='first'"):
        type(template)(template.tokenizer, answers="first")  # type: ignore[arg-type]


def test_every_answer_ends_with_the_end_id_and_holds_it_once(template: ChatTemplate) -> None:
    (document,) = template.encode([CHAT])
    for (start, stop), text in zip(answer_spans(document.editable), ["two three", "four"], strict=True):
        assert document.ids[start:stop].index(template.end_id) == stop - start - 1
        assert template.answer(document.ids[start:stop]) == text


@pytest.mark.parametrize("tokenizer", BOTH, ids=["words", "bytes"])
@pytest.mark.parametrize("kind", TEMPLATES)
@pytest.mark.parametrize("chat", [CHAT, CHAT[1:], CHAT[:3], CHAT[1:3]], ids=["system, 2", "2", "system, 1", "1"])
def test_a_prompt_is_the_training_row_up_to_its_answer(kind, tokenizer, chat) -> None:
    template = kind(tokenizer(CHATML))
    (document,) = template.encode([chat])
    for (start, _), asked in zip(answer_spans(document.editable)[::-1], (chat[:-1], chat[:-3]), strict=False):
        ids, editable = template.prompt(asked, 3)
        assert ids == document.ids[:start] + [template.tokenizer.mask_token_id] * 3
        assert editable == [False] * start + [True] * 3


def test_a_last_question_without_an_answer_is_left_out_of_training(template: ChatTemplate) -> None:
    assert template.encode([CHAT[:4]]) == template.encode([CHAT[:3]])


def test_many_rows_at_once_are_the_same_as_one_by_one(template: ChatTemplate) -> None:
    rows = [CHAT, CHAT[1:3], CHAT[1:], CHAT[3:]]
    assert template.encode(rows) == [document for row in rows for document in template.encode([row])]
    assert template.encode([]) == []


def test_an_answer_is_read_up_to_its_first_end_and_without_control_ids(template: ChatTemplate) -> None:
    mask, pad = template.tokenizer.mask_token_id, template.tokenizer.pad_token_id
    (two,) = template.plain.encode(["two"])
    assert template.answer([*two, mask, pad]) == "two"
    assert template.answer(torch.tensor([mask, *two, template.end_id, *two, template.end_id])) == "two"
    assert template.answer([template.end_id]) == "" == template.answer([])


def test_a_prompt_needs_a_question_and_a_slot(template: ChatTemplate) -> None:
    with pytest.raises(BadRow, match="roles out of order"):
        template.prompt(CHAT, 4)
    with pytest.raises(ValueError, match="length=0"):
        template.prompt(CHAT[:2], 0)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (None, "no messages"),
        ([], "no messages"),
        ("one", "messages is text, not a list"),
        ({"role": "user"}, "messages is a mapping, not a list"),
        (["one"], "a message is text, not a mapping"),
        ([None], "a message is null, not a mapping"),
        ([CHAT[1], 7], "a message is a number, not a mapping"),
        ([{"content": "one"}], "a message without a role"),
        ([{"role": None, "content": "one"}], "a message without a role"),
        ([{"role": "tool", "content": "one"}], "unknown role 'tool'"),
        ([{"role": ["user"], "content": "one"}], "unknown role ['user']"),
        ([{"role": "t" * 99, "content": "one"}], f"unknown role '{'t' * 29} ..."),
        ([{"role": "user", "content": None}], "content is null, not text"),
        ([{"role": "user"}], "content is null, not text"),
        ([{"role": "user", "content": 7}], "content is a number, not text"),
        ([{"role": "user", "content": 0.5}], "content is a number, not text"),
        ([{"role": "user", "content": True}], "content is a truth value, not text"),
        ([{"role": "user", "content": b"one"}], "content is a bytes, not text"),
        ([{"role": "user", "content": [{"type": "text", "text": "one"}]}], "content is a list, not text"),
        ([{"role": "user", "content": "half a pair \ud83d"}], "content with half a surrogate pair"),
        ([{"role": "user", "content": ""}], "empty content"),
        ([CHAT[1], {"role": "assistant", "content": " \n"}], "empty content"),
        ([CHAT[2]], "roles out of order"),
        ([CHAT[0], CHAT[2]], "roles out of order"),
        ([CHAT[1], CHAT[1]], "roles out of order"),
        ([CHAT[1], CHAT[2], CHAT[2]], "roles out of order"),
        ([CHAT[1], CHAT[0]], "roles out of order"),
        ([CHAT[0], CHAT[0], CHAT[1]], "roles out of order"),
        ([CHAT[0]], "no answer"),
        ([CHAT[1]], "no answer"),
    ],
)
def test_a_bad_row_is_refused_with_a_reason_to_count_by(messages: object, reason: str) -> None:
    assert validate(messages) == reason
    template = Turns(word_tokenizer())
    assert template.fault(messages) == reason
    with pytest.raises(BadRow, match=re.escape(reason)) as bad:
        template.encode([CHAT, messages])  # type: ignore[list-item]
    assert bad.value.reason == reason
    assert pickle.loads(pickle.dumps(bad.value)).reason == reason


def test_good_rows_and_prompts_are_not_refused() -> None:
    assert validate(CHAT) is validate(CHAT[1:]) is validate(tuple(CHAT[:4])) is None
    assert validate_prompt(CHAT[1:2]) is validate_prompt(CHAT[:4]) is None
    assert validate_prompt(CHAT[:1]) == validate_prompt(CHAT) == "roles out of order"


def test_a_tokenizer_without_a_mask_is_refused() -> None:
    with pytest.raises(InvalidTokenizer, match="no mask token"):
        Original(word_tokenizer(mask_token=None))


def test_answer_spans_are_the_runs_of_editable_slots() -> None:
    assert answer_spans([]) == answer_spans([False, False]) == []
    assert answer_spans([True]) == [(0, 1)]
    assert answer_spans([False, True, True, False, True]) == [(1, 3), (4, 5)]


def test_a_template_travels_to_another_process_with_the_same_ids_and_fingerprint(template: ChatTemplate) -> None:
    before = template.fingerprint
    documents = template.encode([CHAT])
    other = pickle.loads(pickle.dumps(template))
    assert other.encode([CHAT]) == documents
    assert other.fingerprint == template.fingerprint == before
    assert copy.copy(template).fingerprint == before
    assert type(template)(template.tokenizer, answers="last").fingerprint != before
