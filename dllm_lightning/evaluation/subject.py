"""Who is evaluated, and under which conditions: the same for everything that is measured."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from dllm_lightning.likelihood import ByCount, ByTime, Estimator, estimator
from dllm_lightning.loading import Loaded
from dllm_lightning.model.denoiser import NetworkDenoiser
from dllm_lightning.process import Process
from dllm_lightning.sampler import CannotUndo, Sampler
from dllm_lightning.speaker import Speaker

T = TypeVar("T")
Track = Callable[[Iterable[T], str, int], Iterable[T]]
"""(things, what is done with them, how many) -> the same things, while somebody watches how far it has come."""

MOST_STEPS = 100_000


@dataclass(frozen=True)
class Subject:
    """A model with the sampler that writes for it.

    `length` is the number of slots for an answer, `precision` that of the network's arithmetic; beliefs and draws
    always have float32 at least. Raises CannotUndo for a sampler that cannot write with this model, and ValueError for
    one that would never be done.
    """

    loaded: Loaded
    denoiser: NetworkDenoiser
    sampler: Sampler
    length: int
    batch_size: int
    seed: int
    device: torch.device
    precision: str = "float32"

    def __post_init__(self) -> None:
        if (reason := self.sampler.reason_against(self.denoiser.process)) is not None:
            raise CannotUndo(reason)
        steps = getattr(self.sampler, "steps", None)
        if steps is not None and steps > MOST_STEPS:
            raise ValueError(
                f"sampler.steps={steps} asks the network that often for one answer: give {MOST_STEPS} or less."
            )

    @property
    def longest(self) -> int | None:
        """The longest row that the network reads, where it says so."""
        return self.loaded.longest

    @property
    def pad_id(self) -> int:
        return self.loaded.template.tokenizer.pad_token_id

    def speaker(self, seed: int | None = None) -> Speaker:
        """Writes answers; what it draws begins with the seed."""
        generator = torch.Generator(self.device).manual_seed(self.seed if seed is None else seed)
        return Speaker(self.denoiser, self.loaded.template, self.sampler, self.length, generator, self.longest)

    def arithmetic(self) -> contextlib.AbstractContextManager[Any]:
        """The precision, while the network is asked."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    @contextlib.contextmanager
    def counting(self) -> Iterator[list[int]]:
        """Meanwhile, the number of rows in each call of the network."""
        rows: list[int] = []
        hook = self.loaded.backbone.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
        try:
            yield rows
        finally:
            hook.remove()


def estimator_of(name: str, process: Process) -> Estimator:
    """The estimator of a likelihood by its name: count, time, or auto. Raises CannotEstimate where it does not fit."""
    by = estimator(process) if name == "auto" else {"count": ByCount(), "time": ByTime()}[name]
    by.noise(process)
    return by


def untracked(things: Iterable[T], _: str, __: int) -> Iterable[T]:
    """Nobody watches."""
    return things
