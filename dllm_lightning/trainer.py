"""Lightning's trainer, with what a run needs that nobody watches."""

from __future__ import annotations

from typing import Any

import lightning as L

from dllm_lightning.callbacks import BadSteps, Outcome
from dllm_lightning.saving import WholeFiles


class Trainer(L.Trainer):
    """Writes whole checkpoints or none, leaves a `result.json`, and skips a step whose loss or gradient is not finite.

    After `max_bad_steps` of these in a row it stops and says what caused them. All other options are Lightning's.
    """

    def __init__(self, max_bad_steps: int = 10, **options: Any) -> None:
        around = [Outcome(), *(options.pop("callbacks", None) or []), BadSteps(max_bad_steps)]
        super().__init__(callbacks=around, plugins=[WholeFiles()], **options)
