"""What a program has to do for a network that is told how much is noise: read those weights, and add what they say."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from dllm_lightning.backbone.time_embedding import FURTHEST, TIME_FILE
from dllm_lightning.loading import Loaded

LINES = """\

time, embed = load_file(cached_file(name, {file})), model.get_input_embeddings()


def told(share):  # how much of the answer is noise, in the network's words
    angle = torch.logit(torch.tensor(float(share)), eps=1e-7).clamp(-{furthest:g}, {furthest:g}) * time["frequencies"]
    inner = time["inner.weight"] @ torch.cat([angle.sin(), angle.cos()]) + time["inner.bias"]
    return time["outer.weight"] @ torch.nn.functional.silu(inner) + time["outer.bias"]

"""


class Clock(NamedTuple):
    """Parts of a program: two imports in their places, then `lines` before the prompt. All empty without a clock."""

    loads: str = ""
    finds: str = ""
    lines: str = ""

    @classmethod
    def of(cls, loaded: Loaded) -> Clock:
        """The clock of this model's network."""
        backbone: Any = loaded.backbone
        if backbone.time is None:
            return cls()
        return cls(
            "from safetensors.torch import load_file\n",
            "from transformers.utils import cached_file\n",
            LINES.format(file=json.dumps(TIME_FILE), furthest=FURTHEST),
        )

    def reads(self, share: str) -> str:
        """What the network is given, where `share` is the program's word for how much is noise."""
        return f"inputs_embeds=embed(ids) + told({share})" if self.lines else "input_ids=ids"
