"""Generative perplexity: how probable a causal language model finds what was written.

The text goes through the judge's own tokenizer. The number says little alone: texts that repeat themselves are
probable, so it belongs beside the entropy of the same texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor


class NoJudge(ValueError):
    """There is no causal language model where one was looked for."""


class Verdict(NamedTuple):
    """Nats and tokens of each text (0 and 0 where there was nothing to judge), and how many were too long."""

    nats: Tensor
    tokens: Tensor
    cut: int


@dataclass(frozen=True)
class Judge:
    """A causal language model with its tokenizer. `longest` is how many tokens it reads, where there is a limit."""

    network: Any
    tokenizer: Any
    name: str
    longest: int | None

    @torch.no_grad()
    def verdict(self, texts: Sequence[str], batch_size: int) -> Verdict:
        """-log p of each text, each token given those before it.

        The first is given what begins a text (bos) where the tokenizer has it, and is not scored where it has not.
        What is too long for the network is cut.
        """
        start = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        written = [start + each for each in self._ids(texts)]
        shown = [each[: self.longest] for each in written]
        nats = torch.zeros(len(texts), dtype=torch.float64)
        order = sorted((i for i, ids in enumerate(shown) if len(ids) > 1), key=lambda i: len(shown[i]))
        for batch in (order[i : i + batch_size] for i in range(0, len(order), batch_size)):
            nats[batch] = self._nats([shown[i] for i in batch])
        tokens = torch.tensor([max(0, len(ids) - 1) for ids in shown], dtype=torch.long)
        return Verdict(nats, tokens, sum(len(a) > len(b) for a, b in zip(written, shown, strict=True)))

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer([*texts], add_special_tokens=False, verbose=False)["input_ids"] if texts else []

    def _nats(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The same of some rows of ids, in one call of the network."""
        length = max(map(len, rows))
        ids = torch.tensor([[*row] + [row[-1]] * (length - len(row)) for row in rows])  # behind the text: seen by none
        there = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        place = next(self.network.parameters()).device
        logits = self.network(input_ids=ids.to(place), attention_mask=there.to(place)).logits[:, :-1].float()
        surprise = logits.logsumexp(-1) - logits.gather(-1, ids[:, 1:, None].to(place)).squeeze(-1)
        return (surprise.cpu().double() * there[:, 1:]).sum(1)


def load_judge(folder: str, device: torch.device | str = "cpu") -> Judge:
    """The causal language model in a folder, in float32. Nothing that comes with it is run: no code of its own, no
    pickle. Raises NoJudge where there is none."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    place = Path(folder).expanduser()
    if not place.is_dir():
        raise NoJudge(f"There is no folder judge={folder!r}: give one with a causal language model and its tokenizer.")
    if not any(place.glob("*.safetensors")):
        pickle = next(iter(sorted(place.glob("*.bin"))), None)
        why = f" ({pickle.name} is a pickle, which may run code as it is read, so it is not opened)" if pickle else ""
        raise NoJudge(f"The folder judge={folder!r} holds no weights as safetensors{why}.")
    if not any((place / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")):
        raise NoJudge(f"The folder judge={folder!r} holds a network but no tokenizer; put its tokenizer.json there.")
    disable_progress_bar()
    try:
        network, found = AutoModelForCausalLM.from_pretrained(
            place, use_safetensors=True, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except Exception as error:  # each kind of file has its own
        if "trust_remote_code" in str(error):
            raise NoJudge(
                f"The folder judge={folder!r} asks for code of its own (auto_map), and code that comes with a model is "
                f"never run here. Use a model of a type that transformers knows by itself."
            ) from error
        raise NoJudge(
            f"The folder judge={folder!r} gave no causal language model with a tokenizer ({_first_line(error)})."
        ) from error
    if missing := sorted(found["missing_keys"]):
        raise NoJudge(f"The folder judge={folder!r} is no causal language model: it has no weights for {missing[0]}.")
    network = network.to(device).eval()
    if len(tokenizer) > network.config.get_text_config().vocab_size:
        raise NoJudge(f"The tokenizer in judge={folder!r} has more tokens than its network has logits.")
    if not _is_causal(network):
        raise NoJudge(
            f"The network in judge={folder!r} is no causal language model: what it says of a token depends on the "
            f"tokens behind it. Give a decoder, such as GPT-2."
        )
    longest = getattr(network.config.get_text_config(), "max_position_embeddings", None)
    return Judge(network, tokenizer, place.resolve().name, longest)


@torch.no_grad()
def _is_causal(network: Any) -> bool:
    """Whether what it says of the first tokens stays the same when the last one is another."""
    device = next(network.parameters()).device
    some = torch.arange(2, 10, device=device)[None] % network.config.get_text_config().vocab_size
    other = torch.cat([some[:, :-1], some[:, :1]], dim=1)
    one, two = (network(input_ids=ids).logits[:, :-1].float() for ids in (some, other))
    return bool((one - two).abs().max() <= 1e-5 * one.abs().max())


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
