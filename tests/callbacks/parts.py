"""A toy chat of a few questions, and a network that knows all their answers, or every second one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dllm_lightning.backbone import Backbone
from dllm_lightning.data import ToyDataModule
from dllm_lightning.data.turns import Turns
from dllm_lightning.loss import MaskedCE
from dllm_lightning.model import MDM, AdamW
from dllm_lightning.noise import LogLinear
from dllm_lightning.process import MaskedDiffusion

LENGTH = 8


def toy(validation_size: int = 12, **options: Any) -> ToyDataModule:
    sizes = {"train_size": 32, "validation_size": validation_size, "test_size": 1, "packing": False}
    lengths = {"max_length": 48, "answer_length": LENGTH, "batch_size": 8, "overlong": "drop"}
    return ToyDataModule(template=Turns, **(sizes | lengths | options))


class Oracle(Backbone):
    """Sees the question, and is sure of the answer that came with it; of every `knows`-th question that it was told."""

    packs = True

    def __init__(self, data: ToyDataModule, knows: int = 1) -> None:
        super().__init__()
        self.chunk = 64
        self.unused = nn.Parameter(torch.zeros(()))
        self.pad_id, self.size = data.tokenizer.pad_token_id, len(data.tokenizer)
        self.answers: dict[tuple[int, ...], list[int]] = {}
        for number, (messages, answer) in enumerate(data.prompts(1000)):
            prompt = data.template.prompt(messages, 1).ids[:-1]
            said = {"role": "assistant", "content": answer if number % knows == 0 else "never"}
            ids = data.template.encode([[*messages, said]])[0].ids[len(prompt) :]
            self.answers[tuple(prompt)] = ids + [data.template.end_id] * 64

    def forward(self, inputs: Tensor, t: Tensor, segment: Tensor, at: Tensor, *_: Any, **reading: Any) -> Any:
        logits = torch.zeros(len(at), self.size) + 0 * self.unused
        for place, index in enumerate(at.tolist()):
            row, slot = divmod(index, inputs.shape[1])
            ids = inputs[row].tolist()
            start = segment[row].tolist().index(1)
            for stop in range(start, slot + 1):
                if (answer := self.answers.get(tuple(ids[start:stop]))) is not None:
                    logits[place, answer[slot - stop]] = 50.0
        if (score := reading.get("score")) is None:
            return logits
        values = score(logits, 0, len(at))
        return values[:, 0].sum(), values.detach()

    @property
    def width(self) -> int:
        return self.size

    @property
    def layers(self) -> list[nn.Module]:
        return []

    @property
    def head(self) -> Any:
        raise NotImplementedError

    @property
    def decoder(self) -> nn.Linear:
        raise NotImplementedError

    def encode(self, *_: Any) -> Tensor:
        raise NotImplementedError


def oracle(data: ToyDataModule, knows: int = 1) -> MDM:
    process = MaskedDiffusion(data.vocab, LogLinear())
    return MDM(process, Oracle(data, knows), MaskedCE(), AdamW(lr=1e-9, weight_decay=0.0), validation_draws=1)
