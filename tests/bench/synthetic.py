"""A chat that says nothing: random ids in documents as long as those of real chats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from dllm_lightning.data.chat import Split
from dllm_lightning.data.documents import Counts
from dllm_lightning.data.messages import Message
from dllm_lightning.data.store import Part, Store
from dllm_lightning.data.tulu import TuluDataModule

WIDTH = 50_368

# fmt: off
QUANTILES = (
    (47, 23), (54, 23), (57, 24), (59, 25), (62, 26), (64, 27), (66, 27), (68, 27), (70, 27), (71, 27), (72, 27),
    (74, 27), (75, 28), (77, 29), (78, 30), (80, 30), (82, 31), (84, 33), (86, 34), (89, 38), (92, 40), (97, 43),
    (102, 46), (108, 49), (115, 51), (121, 56), (129, 61), (140, 70), (153, 80), (172, 94), (204, 118), (356, 273),
)
# fmt: on
"""(ids, ids of answers) of the documents of those chats, at evenly spaced places of the order by length."""


class Synthetic(TuluDataModule):
    """Documents of random ids, 14,000 to train on and a few to validate; the vocabulary is as wide as ModernBERT's."""

    @cached_property
    def tokenizer(self) -> Any:
        from tokenizers import Tokenizer
        from tokenizers.models import WordLevel
        from transformers import PreTrainedTokenizerFast

        special = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "pad", "cls", "sep", "mask")}
        words = [*special.values(), *(f"w{i}" for i in range(WIDTH - len(special)))]
        model = WordLevel({word: i for i, word in enumerate(words)}, unk_token=special["unk_token"])
        return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), **special)

    def check(self) -> None:
        """There is no source to look at."""

    def parts(self, split: Split) -> list[Part]:
        random = np.random.default_rng(0)
        shapes = np.array(QUANTILES)[random.integers(len(QUANTILES), size=14_000 if split == "train" else 64)]
        lengths, answers = shapes.T
        starts = np.concatenate([[0], np.cumsum(lengths)])
        ids = random.integers(10, WIDTH, starts[-1], dtype=np.int32)
        editable = np.concatenate([np.arange(length) >= length - answer for length, answer in shapes])
        count = len(shapes)
        counts = Counts(count, count, tokens=int(lengths.sum()), answer_tokens=int(answers.sum()))
        return [Part("synthetic", Store(ids, editable, starts, np.arange(count), counts), np.arange(count))]

    def conversations(self, split: Split) -> Iterator[Sequence[Message]]:
        return iter(())
