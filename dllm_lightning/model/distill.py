"""DuoDistill: a Duo that learns to take long strides (discrete consistency distillation, arXiv:2506.10892)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from dllm_lightning.backbone.chunked import Score
from dllm_lightning.loss import Consistency
from dllm_lightning.model.module import DiffusionModule
from dllm_lightning.model.teacher import (
    Average,
    NoTeacher,
    Teacher,
    forget_teachers,
    read_teacher,
    start_from,
    write_teacher,
)
from dllm_lightning.process import GaussianTrajectory, Process, UniformDiffusion
from dllm_lightning.types import Canvas, Corrupted

Growth = Literal["doubling", "linear"]


class DuoDistill(DiffusionModule):
    """Learns to believe at t what its teacher believes at t - Delta, where the same noise is a little weaker.

    Student and first teacher are the trained Duo at `teacher`. A round lasts `round_steps` optimizer steps; at its end
    the teacher becomes the student (with `teacher_ema`, the average of its weights with that decay), and Delta, which
    starts at `delta`, grows: `doubling`, or `linear` by one `delta` a round. So the belief near the clean text is
    handed on to ever noisier states, and a sampler can take ever longer strides.

    Time is that of a Gaussian trajectory: gamma rises evenly from t = 0 to 1, between the two shares of surviving
    tokens in `alpha_range`. The divergence is the loss (`loss=consistency`); validation reports the bound of the
    student, which is no better for it.

    The teacher of each round is kept beside the checkpoints, not in them, and a run that goes on takes it from there.

    Raises ValueError for numbers that make no rounds, and NoTeacher or NoModel where there is none to learn from.
    """

    accepts: ClassVar[tuple[type[Process], ...]] = (UniformDiffusion,)
    objective: ClassVar[type] = Consistency
    time_conditioning: ClassVar[bool] = True
    process: UniformDiffusion
    loss: Consistency  # type: ignore[assignment]  # a Loss judges one belief, this compares two

    def __init__(
        self,
        *parts: Any,
        teacher: str | None = None,
        round_steps: int = 10_000,
        delta: float = 1 / 512,
        growth: Growth = "doubling",
        teacher_ema: float | None = None,
        alpha_range: Sequence[float] = (0.999, 0.005),
        **options: Any,
    ) -> None:
        check_rounds(round_steps, delta, growth, teacher_ema, alpha_range)
        if not teacher:
            raise NoTeacher("There is nobody to learn from: give model.teacher=RUN, the folder of a run of model=duo.")
        super().__init__(*parts, **options)
        self.round_steps, self.delta, self.growth, self.teacher_ema = round_steps, delta, growth, teacher_ema
        self.trajectory = GaussianTrajectory.between(self.process, (alpha_range[0], alpha_range[1]))
        start_from(teacher, self.backbone, self.process, self.recipe)
        self.teacher: Teacher | None = None
        self.average: Average | None = None
        self._averaged: dict[str, Tensor] | None = None

    @property
    def training_process(self) -> Process:
        return self.trajectory.process

    @property
    def round(self) -> int:
        """The number of the round, from 0."""
        return self.global_step // self.round_steps

    @property
    def stride(self) -> float:
        """Delta of this round, in the time of the trajectory; 1 is the whole of it."""
        times = 2.0 ** min(self.round, 60) if self.growth == "doubling" else self.round + 1.0
        return min(1.0, self.delta * times)

    def corrupt(self, canvas: Canvas) -> Corrupted:
        """What the student reads, at t from Delta to 1."""
        draws = self.draws(canvas)
        return self.trajectory.at(canvas, (draws.times(canvas) + self.stride).clamp(max=1.0), draws)

    def scorer(self, batch: Corrupted) -> Score:
        """The teacher reads the same noise at t - Delta: draws belong to a place, so they can be had again."""
        assert self.teacher is not None
        teacher, process, slots = self.teacher, self.training_process, batch.slots()
        cleaner = self.trajectory.at(batch.clean, batch.t - self.stride, self.draws(batch.clean))
        features, theirs = teacher.features(cleaner, process), cleaner.slots()

        def score(logits: Tensor, start: int, stop: int) -> Tensor:
            log_student = process.log_p_x0(logits, slots.chunk(start, stop))
            log_teacher = teacher.log_p_x0(features[start:stop], theirs.chunk(start, stop), process)
            return self.loss(log_student, log_teacher)[:, None]

        return score

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        self.log("train/delta", self.stride)

    def on_train_start(self) -> None:
        """The teacher of the round at hand: for a new run the student as it is, else the one that was written."""
        resumed = self.trainer.ckpt_path
        states = None if resumed is None else read_teacher([Path(resumed).parent, self.folder], self.round)
        self.teacher = Teacher(self.backbone, states)
        if self.teacher_ema is not None:
            self.average = Average(self.backbone, self.teacher_ema, self._averaged)
        self._keep_teacher(self.round)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """After the last step of a round the teacher becomes the student, before anything can be saved of the next."""
        super().optimizer_step(*args, **kwargs)
        assert self.teacher is not None
        if self.average is not None:
            self.average.update(self.backbone)
        number, rest = divmod(self.global_step + 1, self.round_steps)  # Lightning counts the step when this is over
        if rest == 0:
            self.teacher.become(self.backbone, self.average)
            self._keep_teacher(number)

    def _keep_teacher(self, number: int) -> None:
        """All ranks have the same one, and the first writes it."""
        if self.trainer.is_global_zero and self.teacher is not None:
            write_teacher(self.teacher, self.folder, number, self.recipe)
            forget_teachers(self.folder, number, self.round_steps)

    @property
    def folder(self) -> Path:
        """Where the checkpoints of this run are."""
        return Path(self.trainer.default_root_dir) / "checkpoints"

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.average is not None:
            checkpoint["teacher_average"] = dict(self.average.values)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._averaged = checkpoint.get("teacher_average")


def check_rounds(
    round_steps: int, delta: float, growth: str, teacher_ema: float | None, alpha_range: Sequence[float]
) -> None:
    """Raises ValueError for numbers that make no rounds."""
    if round_steps < 1:
        raise ValueError(f"model.round_steps={round_steps}: a round has at least 1 optimizer step.")
    if not 0 < delta <= 1:
        raise ValueError(f"model.delta={delta} is no stride: give a part of the trajectory, above 0 and at most 1.")
    if growth not in get_args(Growth):
        raise ValueError(f"model.growth={growth!r} is no growth: choose {' or '.join(get_args(Growth))}.")
    if teacher_ema is not None and not 0 <= teacher_ema < 1:
        raise ValueError(f"model.teacher_ema={teacher_ema} averages nothing: give a decay from 0 to below 1, or null.")
    if not (len(alpha_range) == 2 and all(0 < end < 1 for end in alpha_range) and alpha_range[0] != alpha_range[1]):
        raise ValueError(
            f"model.alpha_range={list(alpha_range)} is no range: give two different numbers between 0 and 1."
        )
