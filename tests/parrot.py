"""A model that says the same words to everyone: everything around the network is real, the network is a table."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from dllm_lightning.backbone.chunked import Score
from dllm_lightning.data import Turns
from dllm_lightning.data.template import ChatTemplate
from dllm_lightning.data.toy import toy_tokenizer
from dllm_lightning.model.denoiser import NetworkDenoiser
from dllm_lightning.noise import LogLinear
from dllm_lightning.process import MaskedDiffusion
from dllm_lightning.sampler import Reveal, Sampler
from dllm_lightning.speaker import Speaker
from dllm_lightning.types import Vocab
from tests.sampler.denoisers import in_pieces

TEXT = "the opposite of hot is cold."


class Parrot(nn.Module):
    """Believes in `text` and its end, written over each `length` slots as the last of a row; the earlier, the surer."""

    def __init__(self, template: ChatTemplate, length: int, text: str = TEXT) -> None:
        super().__init__()
        ids = template.plain.encode([text])[0]
        self.ids = torch.tensor((ids + [template.end_id] * length)[:length])
        self.width = len(template.tokenizer)

    def forward(self, ids: Tensor, t: Tensor, segment: Tensor, at: Tensor, score: Score | None = None) -> Tensor:
        slot = at % ids.shape[1] - (ids.shape[1] - len(self.ids))
        logits = torch.zeros(len(at), self.width)
        logits.scatter_(1, self.ids[slot % len(self.ids)][:, None], (9.0 - 0.2 * slot)[:, None])
        return logits if score is None else in_pieces(score, logits)


def parrot(
    length: int = 12, text: str = TEXT, sampler: Sampler | None = None, longest: int | None = None, **config: Any
) -> Any:
    """As if loaded from a checkpoint."""
    template = Turns(toy_tokenizer())
    process = MaskedDiffusion(Vocab.of(template.tokenizer), LogLinear())
    network: Any = Parrot(template, length, text)
    return SimpleNamespace(
        backbone=network,
        template=template,
        sampler=sampler or Reveal(),
        config=OmegaConf.create({"data": {"answer_length": length, "max_length": 40, **config}}),
        longest=longest,
        denoiser=lambda cache=None, compile=False: NetworkDenoiser(network, process, cache),
    )


def speaker(loaded: Any, length: int = 12, positions: int | None = None) -> Speaker:
    generator = torch.Generator().manual_seed(0)
    return Speaker(loaded.denoiser(), loaded.template, loaded.sampler, length, generator, positions)
