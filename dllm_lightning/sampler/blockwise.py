"""Write a text block by block, left to right, each with another sampler (semi-autoregressive decoding in LLaDA).

A block of one slot is autoregression; a block as long as the answer is no blocks at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_lightning.process import Denoiser, Process, Reading
from dllm_lightning.sampler.checks import check_count
from dllm_lightning.sampler.guided import Guided
from dllm_lightning.sampler.reveal import Reveal
from dllm_lightning.sampler.sampler import Sampler
from dllm_lightning.types import Canvas, Step, Trajectory


@dataclass(frozen=True)
class Blockwise(Sampler):
    """Lets `inner` write `block` slots at a time; what it says about steps, it says about one block.

    The blocks of a row are cut from its editable slots, so the last one may be shorter, and rows of a batch may differ.
    With `stop`, a row in which a block has written the end of the answer is finished: the slots of its later blocks
    become ends, too, and no network call is spent on them. So `length` may be generous: it is a maximum.

    Networks are told how much of the whole text is noise, not of the block. Raises ValueError for a block without
    slots, and for an inner sampler that has to see the whole text.
    """

    inner: Sampler = field(default_factory=Reveal)
    block: int = 32
    stop: bool = True

    def __post_init__(self) -> None:
        check_count("block", self.block)
        if isinstance(self.inner, Guided | Blockwise):
            raise ValueError(
                f"sampler.inner={type(self.inner).__name__} does not go inside the blocks: guidance goes around them "
                f"(sampler=guided sampler@sampler.inner=blockwise), and blocks have no blocks."
            )

    def refuses(self, process: Process) -> str | None:
        return self.inner.reason_against(process)

    def walk(
        self,
        denoiser: Denoiser,
        canvas: Canvas,
        generator: torch.Generator | None,
        x: Int[Tensor, "B L"],
        drafted: bool,
    ) -> Trajectory:
        process, (_, editable, segment) = denoiser.process, canvas
        number = torch.where(editable, (editable.long().cumsum(1) - 1) // self.block, -1)
        index, time, total = 0, 1.0, int(editable.sum())
        for block in range(int(number.max()) + 1 if total else 0):
            here, later = (number == block) & editable, (number > block) & editable
            slots, waiting = int(here.sum()), int(later.sum())
            if slots == 0:  # every row that goes so far is finished
                return
            part = Canvas(x, here, segment)
            inside = BlockDenoiser(denoiser.within(part), here.sum(1), later.sum(1), canvas.editable.sum(1))
            walk = self.inner.walk(inside, part, generator, x, drafted)
            for step, last in _with_last(walk):
                x = step.x
                if last and self.stop:
                    over = later & (here & (x == process.vocab.eos_id)).any(1, keepdim=True)
                    step = _ending(step, over, process.vocab.eos_id)
                    x = step.x
                    editable, waiting = editable & ~over, waiting - int(over.sum())
                noise = (process.mask_ratio(torch.tensor([step.s], dtype=torch.float64)) * slots + waiting) / total
                s = min(time, process.schedule.time_of(1 - noise).item())
                yield dataclasses.replace(step, index=index, t=time, s=s)
                index, time = index + 1, s


def _ending(step: Step, over: Bool[Tensor, "B L"], eos_id: int) -> Step:
    """A step that also writes the ends which follow from an end: nobody was asked about them, and they are certain."""
    fresh = over & (step.x != eos_id)
    sure = step.confidence.masked_fill(fresh, 1.0)
    return dataclasses.replace(step, x=step.x.masked_fill(over, eos_id), changed=step.changed | fresh, confidence=sure)


def _with_last(walk: Trajectory) -> Iterator[tuple[Step, bool]]:
    """Each step, and whether it is the last one."""
    step = next(walk, None)
    while step is not None:
        following = next(walk, None)
        yield step, following is None
        step = following


class BlockDenoiser(Denoiser):
    """The belief for one block: the network is told how much of the whole text is noise.

    Of the `total` slots of each row `here` are in the block, and `later` ones are noise still.
    """

    def __init__(
        self, inner: Denoiser, here: Int[Tensor, " B"], later: Int[Tensor, " B"], total: Int[Tensor, " B"]
    ) -> None:
        self.inner, self.process = inner, inner.process
        self.here, self.later, self.total = here, later, total.clamp(min=1)

    def read(
        self,
        x_t: Int[Tensor, "B L"],
        t: Float[Tensor, " B"],
        segment: Int[Tensor, "B L"],
        at: Bool[Tensor, "B L"],
        reading: Reading,
    ) -> tuple[Tensor, ...]:
        noise = (self.process.mask_ratio(t) * self.here + self.later) / self.total
        return self.inner.read(x_t, self.process.schedule.time_of(1 - noise), segment, at, reading)
