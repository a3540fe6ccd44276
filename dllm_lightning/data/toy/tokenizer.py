"""The tokenizer of the toy chat, built in code: whole words of the little world, and single signs for everything else.

It is a WordPiece tokenizer, so a word it does not know is spelt ("zebra" is z ##e ##b ##r ##a), a number is a row of
digits, and "[MASK]" inside a message is spelt too when the caller has special text split.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dllm_lightning.data.toy import world
from dllm_lightning.data.toy.tasks import tasks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CONTROL = 8  # [unused0] ... : ids that no text can produce, free for the markers of a template
_SIGNS = "abcdefghijklmnopqrstuvwxyz0123456789"
_PUNCTUATION = ".,:;?!+-*/=()[]'\"&%$#@<>_|"


def toy_vocabulary() -> list[str]:
    """Every piece of the tokenizer, in the order of the ids."""
    wordings = (wording for task in tasks().values() for wording in task.wordings)
    asked = {word for wording in wordings for word in re.findall(r"[a-z]+", re.sub(r"\{\w+\}", "", wording.lower()))}
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"[unused{i}]" for i in range(CONTROL))]
    signs = [*_PUNCTUATION, *_SIGNS, *(f"##{sign}" for sign in _SIGNS)]
    return [*special, *signs, *sorted((asked | world.vocabulary()) - {*_SIGNS})]


def toy_tokenizer() -> PreTrainedTokenizerFast:
    """A Hugging Face tokenizer for the toy chat; nothing is read from disk or network."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {piece: index for index, piece in enumerate(toy_vocabulary())}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    # words, numbers and signs never share a piece, so 3+4? reads like 3 + 4 ?
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(r"[a-z]+|[0-9]+|[^a-z0-9]"), behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        eos_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "attention_mask"],
        name_or_path="toy",
    )
