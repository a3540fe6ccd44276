"""Any masked language model of Hugging Face behind the Backbone protocol: one document per row, padding at either end.

ModernBERT has a room of its own (`modernbert.py`), because it can also read packed rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dllm_lightning.backbone.backbone import Backbone, CannotPack
from dllm_lightning.backbone.mixture import Mixture
from dllm_lightning.backbone.networks import InvalidBackbone, available_attention, beside, fresh, published
from dllm_lightning.backbone.time_embedding import TIME_FILE, TimeEmbedding
from dllm_lightning.types import SoftTokens, positions

_HEADS = ("lm_head", "cls", "predictions")
"""Where Hugging Face's masked language models keep the step from states to logits, if it is one module."""

_OTHERS = "it cannot be asked about chosen slots. Use ModernBERT, BERT or RoBERTa."


class MaskedLM(Backbone):
    """An `AutoModelForMaskedLM`: published (`pretrained`: hub id or folder) or with random weights (`config`).

    `attention` names the attention kernel; where it is missing, sdpa takes over and says so once. Weights are float32
    whatever the file holds: lower precision is the trainer's autocast, never plain AdamW on bfloat16 weights.
    With `time_conditioning` the noise level of each slot is added to its embedding (see `time_embedding.py`), by the
    weights that were exported with a published network, if there are any; else it starts from nothing.

    Raises InvalidBackbone when nothing is at `pretrained` or it is no masked language model.
    """

    packs = False

    def __init__(
        self,
        pretrained: str | None = None,
        config: Mapping[str, Any] | None = None,
        attention: str = "sdpa",
        gradient_checkpointing: bool = False,
        compile: bool = False,
        chunk: int = 512,
        time_conditioning: bool = False,
    ) -> None:
        super().__init__()
        if (pretrained is None) == (config is None):
            raise InvalidBackbone(
                f"A backbone is either published or made from sizes, but backbone.pretrained={pretrained!r} and "
                f"backbone.config={dict(config) if config is not None else None}. Give exactly one of them."
            )
        if chunk < 1:
            raise InvalidBackbone(f"backbone.chunk={chunk} slots cannot be projected at a time: choose at least 1.")
        self.chunk = chunk
        self.attention = available_attention(attention)
        self.network = published(pretrained, self.attention) if pretrained else fresh(config or {}, self.attention)
        self._check()
        table = self.network.get_input_embeddings()
        self.time = TimeEmbedding(table.weight.shape[1]) if time_conditioning else None
        if self.time is not None and pretrained and (file := beside(pretrained, TIME_FILE)) is not None:
            self.time.restore(file)
        if gradient_checkpointing:
            self.network.gradient_checkpointing_enable({"use_reentrant": False})
        if compile:
            self.compile_network()

    def compile_network(self) -> None:
        """Compiles what reads texts, of any lengths; the names in a checkpoint stay the same."""
        self.network.base_model.compile(dynamic=True)

    @property
    def width(self) -> int:
        return int(self.network.config.vocab_size)

    @property
    def layers(self) -> list[nn.Module]:
        base = self.network.base_model
        stack = getattr(base, "layers", None) or getattr(getattr(base, "encoder", None), "layer", [])
        return list(stack)

    @property
    def recipe(self) -> dict[str, Any]:
        """The sizes of the network as plain values: enough to build it again and load its weights."""
        return self.network.config.to_diff_dict() | {"model_type": self.network.config.model_type}

    def read(
        self, inputs: Int[Tensor, "B L"], level: Float[Tensor, "B L"], soft: SoftTokens | None = None
    ) -> dict[str, Tensor]:
        """What the Hugging Face network is given: ids, or embeddings where they say more than ids can.

        A soft token is the weighted sum of its tokens' rows, and its `rest` times the mean row.
        """
        if soft is None and self.time is None:
            return {"input_ids": inputs}
        table = self.network.get_input_embeddings()
        embedded = table(inputs)
        if soft is not None:
            mixed = Mixture.apply(table.weight, soft.ids, soft.weight, soft.rest)
            embedded = embedded.flatten(0, 1).index_copy(0, soft.at, mixed.to(embedded.dtype)).view_as(embedded)
        if self.time is not None:
            embedded = embedded + self.time(level)
        return {"inputs_embeds": embedded}

    def encode(
        self,
        inputs: Int[Tensor, "B L"],
        level: Float[Tensor, "B L"],
        segment: Int[Tensor, "B L"],
        soft: SoftTokens | None = None,
    ) -> Float[Tensor, "B L D"]:
        """The states of unpacked rows.

        Raises CannotPack for several documents in a row, and InvalidBackbone for rows longer than the network reads.
        """
        if bool((segment > 1).any()):
            raise CannotPack(
                f"{type(self.network).__name__} cannot keep packed documents apart. "
                f"Use data.packing=false, or a ModernBERT backbone."
            )
        places = {}
        if self.longest is not None:
            if inputs.shape[1] > self.longest:
                raise InvalidBackbone(
                    f"{type(self.network).__name__} reads {self.longest} slots at most, and a row has "
                    f"{inputs.shape[1]}. Choose a smaller data.max_length, or a ModernBERT backbone."
                )
            places = {"position_ids": positions(segment) + self._first}
        visible = (segment > 0).long()
        read = self.read(inputs, level, soft)
        return self.network.base_model(**read, attention_mask=visible, **places).last_hidden_state

    @property
    def longest(self) -> int | None:
        """The size of the table of absolute positions: a row that is padded on the left counts from its text."""
        return None if self._places is None else self._places.num_embeddings - self._first

    @property
    def _first(self) -> int:
        """The place of the first position in the table; RoBERTa's counts on from its padding id."""
        table = self._places
        return 0 if table is None or table.padding_idx is None else table.padding_idx + 1

    @property
    def _places(self) -> nn.Embedding | None:
        table = getattr(getattr(self.network.base_model, "embeddings", None), "position_embeddings", None)
        return table if isinstance(table, nn.Embedding) else None

    @property
    def head(self) -> Callable[[Float[Tensor, "N D"]], Float[Tensor, "N K"]]:
        for name in _HEADS:
            if isinstance(module := getattr(self.network, name, None), nn.Module):
                return module
        raise InvalidBackbone(
            f"{type(self.network).__name__} has no one module that makes logits of states ({', '.join(_HEADS)}): "
            f"{_OTHERS}"
        )

    @property
    def decoder(self) -> nn.Linear:
        return self.network.get_output_embeddings()

    @torch.no_grad()
    def _check(self) -> None:
        """A head that is only the last part of the way to the logits would train another network in silence."""
        ids = torch.arange(min(3, self.width))[None]
        training = self.network.training
        self.network.eval()
        whole, ours = self.network(input_ids=ids).logits, self.head(self.network.base_model(ids).last_hidden_state)
        self.network.train(training)
        if whole.shape != ours.shape or not torch.allclose(whole, ours, rtol=1e-3, atol=1e-3):
            raise InvalidBackbone(f"{type(self.network).__name__} does more than its head shows: {_OTHERS}")
