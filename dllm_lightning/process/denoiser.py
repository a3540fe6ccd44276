"""What a sampler asks: a belief about the clean text, read a few slots at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_lightning.process.process import Process
from dllm_lightning.types import Canvas

Reading = Callable[[Tensor, slice], tuple[Tensor, ...]]
"""(log p(x_0) of n slots (n K), which of the N slots these are) -> what is kept of them: tensors of n rows each."""


class Denoiser(ABC):
    """A network's belief about the clean text, under the rules of one process.

    A table of the belief at N slots has N·K numbers, of which a walk keeps a few for each slot: the token drawn, how
    sure it is. So the walk hands over the `reading` that picks these, and the table need never exist as a whole.
    """

    process: Process
    """A true diffusion, whose reverse the samplers walk (see `Process.plain`)."""

    @abstractmethod
    def read(
        self,
        x_t: Int[Tensor, "B L"],
        t: Float[Tensor, " B"],
        segment: Int[Tensor, "B L"],
        at: Bool[Tensor, "B L"],
        reading: Reading,
    ) -> tuple[Tensor, ...]:
        """What `reading` keeps of log p(x_0 | x_t) at the slots in `at`, for all N of them in row order.

        `t` is the time of each row. The reading is called for some slots after the others, at least once, and may
        write over what it is given.
        """

    def __call__(
        self, x_t: Int[Tensor, "B L"], t: Float[Tensor, " B"], segment: Int[Tensor, "B L"], at: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "N K"]:
        """The whole table of log p(x_0 | x_t) at the slots in `at`."""
        (table,) = self.read(x_t, t, segment, at, lambda log_p_x0, _: (log_p_x0,))
        return table

    def within(self, canvas: Canvas) -> Denoiser:
        """The same belief for one walk, on which only the editable slots of this canvas change, one way or another.

        Whoever remembers anything of a text from one call to the next starts here, with an empty memory.
        """
        return self
