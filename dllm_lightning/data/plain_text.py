"""Text to ids such that no text gives a control id, and back.

A tokenizer looks for its special tokens in whatever it reads, so a message that spells "[MASK]" would mask itself. Here
the tokenizer is rebuilt without them: they are neither looked for nor known as words, and their letters are tokenised
like any others. Ids of all other tokens stay what they were, and nothing has to be searched or escaped in the text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from dllm_lightning.types import InvalidTokenizer

AT_ONCE = 4_000_000  # characters given to the tokenizer in one call, which takes some 150 bytes for each


class PlainText:
    """A fast tokenizer that has never heard of its control tokens; `spec` is its JSON description."""

    def __init__(self, backend: Any, control_ids: frozenset[int]) -> None:
        from tokenizers import Tokenizer

        self.control_ids = control_ids
        self.spec = json.dumps(without(json.loads(backend.to_str()), control_ids), ensure_ascii=False)
        self._tokenizer = Tokenizer.from_str(self.spec)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, none of them a control id."""
        ids = [
            encoding.ids
            for portion in portions(texts)
            for encoding in self._tokenizer.encode_batch_fast(portion, add_special_tokens=False)
        ]
        for text, found in zip(texts, ids, strict=True):
            if not self.control_ids.isdisjoint(found):
                raise InvalidTokenizer(
                    f"The tokenizer reads the ordinary text {text[:80]!r} as control tokens "
                    f"{sorted(self.control_ids.intersection(found))}. Give it an unknown token of its own."
                )
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids that are not control ids."""
        return self._tokenizer.decode([i for i in ids if i not in self.control_ids], skip_special_tokens=False)


def portions(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts in order, some at a time: few where they are long."""
    portion: list[str] = []
    letters = 0
    for text in texts:
        if portion and letters + len(text) > AT_ONCE:
            yield portion
            portion, letters = [], 0
        portion.append(text)
        letters += len(text)
    yield portion


def without(spec: dict[str, Any], control_ids: frozenset[int]) -> dict[str, Any]:
    """A tokenizer's description without the control tokens: not among its added tokens, not in its model's vocabulary.

    Added tokens that stay get their id from the vocabulary, because a tokenizer numbers the others anew as it loads.
    """
    model, added = spec["model"], spec["added_tokens"]
    kept = [token for token in added if token["id"] not in control_ids]
    if isinstance(model["vocab"], dict):
        unknown = {model.get("unk_token")} if model["type"] != "BPE" else set()
        vocab = model["vocab"] | {token["content"]: token["id"] for token in kept}
        words = {word for word, i in vocab.items() if i in control_ids and word not in unknown}
        model["vocab"] = {word: i for word, i in vocab.items() if word not in words}
        if model["type"] == "BPE" and words:
            model["merges"] = [pair for pair in model["merges"] if not _makes(pair, words)]
            model["unk_token"] = model["unk_token"] if model["unk_token"] in model["vocab"] else None
    else:  # Unigram: the place in the list is the id, and no text contains an empty piece
        pieces = model["vocab"]
        pieces += [["", 0.0]] * (max((token["id"] for token in kept), default=-1) + 1 - len(pieces))
        for token in kept:
            pieces[token["id"]] = [token["content"], pieces[token["id"]][1]]
        model["vocab"] = [["", 0.0] if i in control_ids else piece for i, piece in enumerate(pieces)]
    ordinary = [token for token in kept if not token["special"]]
    return spec | {"added_tokens": ordinary, "truncation": None, "padding": None, "post_processor": None}


def _makes(pair: str | Sequence[str], words: set[str]) -> bool:
    left, right = pair.split(" ") if isinstance(pair, str) else pair
    return left in words or right in words or left + right in words
