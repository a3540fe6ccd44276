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

    def reason_against(self, process: Process) -> str | None:
        """Why this walk cannot undo the noise of a process, by its kind or by its options; None if it can."""
        return self.refuses(process) if isinstance(process, self.accepts) else self._stranger(process)

    def _stranger(self, process: object) -> str:
        fits = " or ".join(kind.__name__ for kind in self.accepts)
        return (
            f"{type(self).__name__} walks back through {fits}, but the denoiser's process is {type(process).__name__}."
        )

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
        process = denoiser.process
        if not isinstance(process, self.accepts):
            raise CannotUndo(f"{self._stranger(process)} Use sampler=ancestral, which works with any.")
        if (reason := self.refuses(process)) is not None:
            raise CannotUndo(f"{type(self).__name__} cannot be used: {reason}")
        x = beginning(process, canvas, generator, draft)
        return self.walk(denoiser.within(canvas), canvas, generator, x, draft is not None)

    @abstractmethod
    def walk(
        self,
        denoiser: Denoiser,
        canvas: Canvas,
        generator: torch.Generator | None,
        x: Int[Tensor, "B L"],
        drafted: bool,
    ) -> Trajectory:
        """The trajectory itself, for a process that is accepted, from the state x: pure noise, or a draft."""

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
