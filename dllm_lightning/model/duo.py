"""Duo: a uniform-state diffusion model, first trained through soft tokens (The Diffusion Duality, arXiv:2506.10892)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from dllm_lightning.model.module import DiffusionModule
from dllm_lightning.model.optimizer import steps_of
from dllm_lightning.process import Process, Relaxed, SoftCorruption, UniformDiffusion
from dllm_lightning.types import Canvas, Corrupted


class Duo(DiffusionModule):
    """Learns which token belongs in each slot, given all others; from random tokens, it corrects.

    The `curriculum` comes first: a number of steps, or below 1 a share of the run (0: none). In it the network reads
    soft tokens of temperature `tau`, and noise stays between the two shares of surviving tokens in `alpha_range`. What
    it descends on there bounds nothing, because a soft token says more than the hard one. Then come hard tokens on the
    whole path, and the loss as it is written. At tau = 0 soft tokens are hard ones.

    `noise_weights` may take the place of `alpha_range`: the weights w of noisy tokens (1 - w) x + w noise. Those are
    not scaled to alpha_tilde^2 + sigma_tilde^2 = 1, as ours are, so that their tau is 1.3 to 1.4 times ours.

    `top_k` is how many random tokens are mixed into each soft token, the largest of the Gaussian behind it; null mixes
    all K, which is for tests.

    Raises ValueError for numbers that make no curriculum.
    """

    accepts: ClassVar[tuple[type[Process], ...]] = (UniformDiffusion,)
    time_conditioning: ClassVar[bool] = True
    process: UniformDiffusion

    def __init__(
        self,
        *parts: Any,
        curriculum: float = 0.5,
        tau: float = 1e-3,
        alpha_range: Sequence[float] = (0.95, 0.05),
        noise_weights: Sequence[float] | None = None,
        top_k: int | None = 8,
        **options: Any,
    ) -> None:
        check_curriculum(curriculum, tau, alpha_range, noise_weights, top_k)
        super().__init__(*parts, **options)
        self.curriculum, self.tau = curriculum, tau
        states = self.process.count
        if noise_weights is not None:
            schedule = Relaxed.of_weights(states, *noise_weights)
        else:
            schedule = Relaxed(1 - max(alpha_range), 1 - min(alpha_range), classes=states)
        self.relaxed = SoftCorruption(dataclasses.replace(self.process, schedule=schedule), top_k)

    @property
    def curriculum_steps(self) -> float:
        """The optimizer step at which hard tokens begin."""
        return steps_of(self.curriculum, "model.curriculum", self.run_steps)

    @property
    def in_curriculum(self) -> bool:
        return self.global_step < self.curriculum_steps

    @property
    def training_process(self) -> Process:
        return self.relaxed.process if self.in_curriculum else self.process

    def corrupt(self, canvas: Canvas) -> Corrupted:
        if not self.in_curriculum:
            return super().corrupt(canvas)
        draws = self.draws(canvas)
        return self.relaxed.corrupt(canvas, draws.times(canvas), draws, self.tau)


def check_curriculum(
    curriculum: float,
    tau: float,
    alpha_range: Sequence[float],
    noise_weights: Sequence[float] | None,
    top_k: int | None,
) -> None:
    """Raises ValueError for numbers that make no curriculum."""
    if curriculum < 0:
        raise ValueError(
            f"model.curriculum={curriculum} is no part of a run: "
            f"give a number of steps, a share below 1, or 0 for none."
        )
    if tau < 0:
        raise ValueError(f"model.tau={tau} softens nothing: give 0 for hard tokens, or a temperature above 0.")
    for name, ends in (("alpha_range", alpha_range), ("noise_weights", noise_weights)):
        if ends is not None and not (len(ends) == 2 and all(0 < end < 1 for end in ends) and ends[0] != ends[1]):
            raise ValueError(f"model.{name}={list(ends)} is no range: give two different numbers between 0 and 1.")
    if top_k is not None and top_k < 1:
        raise ValueError(f"model.top_k={top_k} mixes no token in: give 1 or more, or null for all of them.")
