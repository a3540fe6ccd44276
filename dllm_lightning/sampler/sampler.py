"""What a sampler is: a walk from noise to text, told one step at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_lightning.process import Process
from dllm_lightning.types import Canvas, Trajectory


class CannotUndo(ValueError):
    """The sampler does not know the way back from this process's noise."""


@runtime_checkable
class Denoiser(Protocol):
    """A network's belief about the clean text, under the rules of one process."""

    @property
    def process(self) -> Process:
        """A true diffusion, whose reverse the samplers walk (see `Process.plain`)."""
        ...

    def __call__(
        self, x_t: Int[Tensor, "B L"], t: Float[Tensor, " B"], segment: Int[Tensor, "B L"], at: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "N K"]:
        """log p(x_0 | x_t) at the slots in `at`, in row order; N is their number. `t` is the time of each row."""
        ...


@dataclass(frozen=True)
class Sampler(ABC):
    """How to walk from noise to text. The schedule comes with the denoiser's process, so it is always the trained one.

    A sampler draws from `generator`, which lives on the canvas's device: the same one gives the same text.
    """

    accepts: ClassVar[tuple[type[Process], ...]] = (Process,)
    """The processes whose noise this walk can undo."""

    def trajectory(self, denoiser: Denoiser, canvas: Canvas, generator: torch.Generator | None = None) -> Trajectory:
        """Every step from the prior to the finished text. Slots that are not editable never change.

        Raises CannotUndo, at once, for a process that this walk does not accept.
        """
        if not isinstance(denoiser.process, self.accepts):
            fits = " or ".join(process.__name__ for process in self.accepts)
            raise CannotUndo(
                f"{type(self).__name__} walks back through {fits}, but the denoiser's process is "
                f"{type(denoiser.process).__name__}. Use sampler=ancestral, which works with any."
            )
        return self.walk(denoiser, canvas, generator)

    @abstractmethod
    def walk(self, denoiser: Denoiser, canvas: Canvas, generator: torch.Generator | None) -> Trajectory:
        """The trajectory itself, for a process that is accepted."""

    def sample(
        self, denoiser: Denoiser, canvas: Canvas, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B L"]:
        """The finished text: the last state of the trajectory (the canvas itself if nothing is editable)."""
        x = canvas.ids
        for step in self.trajectory(denoiser, canvas, generator):
            x = step.x
        return x
