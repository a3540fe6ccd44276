"""What a sampler is: a walk from noise to text, told one step at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from dllm_lightning.process import Denoiser, Process, UniformDiffusion
from dllm_lightning.types import Canvas, Trajectory


class CannotUndo(ValueError):
    """The sampler does not know the way back from this process's noise."""


@dataclass(frozen=True)
class Sampler(ABC):
    """How to walk from noise to text. The schedule comes with the denoiser's process, so it is always the trained one.

    A sampler draws from `generator`, which lives on the canvas's device: the same one gives the same text. With a
    `draft`, a text whose editable slots stand in for the prior, it corrects or completes what is already there.
    """

    accepts: ClassVar[tuple[type[Process], ...]] = (Process,)
    """The processes whose noise this walk can undo."""

    def refuses(self, process: Process) -> str | None:
        """Why these options cannot undo the noise of a process that is accepted; None if they can."""
        return None

    def trajectory(
        self,
        denoiser: Denoiser,
        canvas: Canvas,
        generator: torch.Generator | None = None,
        draft: Int[Tensor, "B L"] | None = None,
    ) -> Trajectory:
        """Every step from the prior, or from the draft, to the finished text. Slots that are not editable never change.

        Raises CannotUndo, at once, for a process that this walk does not accept.
        """
        if not isinstance(denoiser.process, self.accepts):
            fits = " or ".join(process.__name__ for process in self.accepts)
            raise CannotUndo(
                f"{type(self).__name__} walks back through {fits}, but the denoiser's process is "
                f"{type(denoiser.process).__name__}. Use sampler=ancestral, which works with any."
            )
        if (reason := self.refuses(denoiser.process)) is not None:
            raise CannotUndo(f"{type(self).__name__} cannot be used: {reason}")
        return self.walk(denoiser.within(canvas), canvas, generator, draft)

    @abstractmethod
    def walk(
        self,
        denoiser: Denoiser,
        canvas: Canvas,
        generator: torch.Generator | None,
        draft: Int[Tensor, "B L"] | None,
    ) -> Trajectory:
        """The trajectory itself, for a process that is accepted."""

    def sample(
        self,
        denoiser: Denoiser,
        canvas: Canvas,
        generator: torch.Generator | None = None,
        draft: Int[Tensor, "B L"] | None = None,
    ) -> Int[Tensor, "B L"]:
        """The finished text: the last state of the trajectory (where it has none, what there was to begin with)."""
        x = canvas.ids if draft is None else torch.where(canvas.editable, draft, canvas.ids)
        for step in self.trajectory(denoiser, canvas, generator, draft):
            x = step.x
        return x


def beginning(
    process: Process, canvas: Canvas, generator: torch.Generator | None, draft: Int[Tensor, "B L"] | None
) -> Int[Tensor, "B L"]:
    """The state that a walk sets out from: pure noise, or the draft in the editable slots.

    What is no state of uniform noise, such as a mask in the draft, says nothing there, and becomes a random one.
    """
    x = process.prior(canvas, generator)
    if draft is None:
        return x
    given = canvas.editable
    if isinstance(process, UniformDiffusion):
        given = given & process.is_state(draft)
    return torch.where(given, draft, x)
