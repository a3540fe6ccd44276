"""What the model says while it learns: answers of several lengths, whole trajectories, and how many are right."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import lightning as L
import torch

from dllm_lightning.callbacks.tables import Table, show, to_loggers
from dllm_lightning.loggers import keep_rows
from dllm_lightning.model.denoiser import NetworkDenoiser
from dllm_lightning.sampler import Sampler
from dllm_lightning.types import Canvas, Step


class SampleLogging(L.Callback):
    """After every `every`-th validation: a grid of prompts × answer lengths, and the trajectories of its last column.

    The tables go to every logger in its own way, to `samples.csv` in the run's folder, and to the terminal. Where the
    data can judge answers (toy), `score` unseen questions are answered too, and `val/exact_match` is logged with its
    standard error.

    All ranks sample the same prompts with the same draws and take the same number of steps, so that sharded networks
    never wait for each other; rank zero alone writes.
    """

    def __init__(
        self,
        sampler: Sampler,
        data: Any,
        prompts: int = 4,
        lengths: Sequence[int] = (16, 32, 64),
        frames: int = 8,
        every: int = 1,
        score: int = 256,
        seed: int = 0,
    ) -> None:
        if prompts < 0 or every < 1 or frames < 1 or score < 0 or any(n < 1 for n in lengths):
            raise ValueError(
                f"callbacks.samples has prompts={prompts}, lengths={list(lengths)}, frames={frames}, every={every}, "
                f"score={score}: counts must not be negative, and lengths, frames and every at least 1."
            )
        self.sampler, self.data = sampler, data
        self.prompts, self.lengths, self.frames, self.every, self.score = prompts, list(lengths), frames, every, score
        self.seed, self.validations = seed, 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A run that goes on samples again what it had sampled after its checkpoint."""
        if trainer.is_global_zero:
            keep_rows(self.file(trainer), lambda row: int(row["step"]) <= trainer.global_step)

    def file(self, trainer: L.Trainer) -> Path:
        return Path(trainer.default_root_dir) / "samples.csv"

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking:
            return
        self.validations += 1
        training = pl_module.backbone.training
        denoiser = NetworkDenoiser(pl_module.backbone, pl_module.process)
        with trainer.precision_plugin.val_step_context():
            if self.score and (questions := self.data.questions(self.score)):
                right = self.right(denoiser, questions, pl_module.device)
                share = sum(right) / len(right)
                pl_module.log("val/exact_match", torch.tensor(share), prog_bar=True)
                pl_module.log("val/exact_match_error", torch.tensor((share * (1 - share) / len(right)) ** 0.5))
            if self.prompts and self.lengths and self.validations % self.every == 0:
                self.log_samples(trainer, denoiser, pl_module.device)
        pl_module.backbone.train(training)

    def right(self, denoiser: NetworkDenoiser, questions: Sequence[Any], device: torch.device) -> list[bool]:
        """Whether each question was answered rightly, in the data's own judgement."""
        documents = [self.data.template.prompt(messages, self.data.answer_length) for messages, _ in questions]
        canvas = self._canvas(documents, device)
        x = self.sampler.sample(denoiser, canvas, self._generator(device))
        answers = [self.data.template.answer(row[keep].tolist()) for row, keep in zip(x, canvas.editable, strict=True)]
        return [judge(answer) for answer, (_, judge) in zip(answers, questions, strict=True)]

    def log_samples(self, trainer: L.Trainer, denoiser: NetworkDenoiser, device: torch.device) -> None:
        prompts = self._prompts(denoiser.backbone.longest)
        if not prompts:
            return
        columns = ["step", "prompt", "reference", *(f"length {n}" for n in self.lengths)]
        rows: list[list[Any]] = [[trainer.global_step, m[-1]["content"], reference] for m, reference in prompts]
        steps: list[Step] = []
        for length in self.lengths:
            canvas = self._canvas([self.data.template.prompt(m, length) for m, _ in prompts], device)
            steps = list(self.sampler.trajectory(denoiser, canvas, self._generator(device)))
            for row, x, keep in zip(rows, steps[-1].x, canvas.editable, strict=True):
                row.append(self.data.template.answer(x[keep].tolist()))
        if not trainer.is_global_zero:
            return
        moves = self._trajectories(trainer.global_step, prompts, canvas, steps)
        tables = [Table("samples", columns, rows), moves]
        to_loggers(trainer.loggers, tables, trainer.global_step)
        self._append(self.file(trainer), tables[0])
        show(tables[0])

    def _prompts(self, longest: int | None) -> list[Any]:
        """Questions of the validation set, as long as the network can read them with the longest answer."""
        asked = self.data.prompts(self.prompts)
        sizes = [len(self.data.template.prompt(messages, max(self.lengths)).ids) for messages, _ in asked]
        return [prompt for prompt, size in zip(asked, sizes, strict=True) if longest is None or size <= longest]

    def _trajectories(self, step: int, prompts: Sequence[Any], canvas: Canvas, steps: Sequence[Step]) -> Table:
        """`frames` states of each answer, evenly spaced and the last one always, masks shown as a low line."""
        stride = -(-len(steps) // self.frames)
        kept = [s for s in steps if s.index % stride == 0 or s is steps[-1]]
        rows = [
            [
                step,
                messages[-1]["content"],
                state.index + 1,
                round(state.s, 4),
                self._raw(state.x[i][canvas.editable[i]]),
            ]
            for i, (messages, _) in enumerate(prompts)
            for state in kept
        ]
        return Table("trajectories", ["step", "prompt", "move", "t", "text"], rows)

    def _raw(self, ids: torch.Tensor) -> str:
        """The text in the slots, each run of masks as so many low lines; ids that are no text are left out."""
        runs = [(hidden, [*run]) for hidden, run in groupby(ids.tolist(), self.data.tokenizer.mask_token_id.__eq__)]
        parts = ("_" * len(run) if hidden else self.data.template.plain.decode(run).strip() for hidden, run in runs)
        return " ".join(filter(None, parts))

    def _canvas(self, documents: Sequence[Any], device: torch.device) -> Canvas:
        return Canvas.left_padded(documents, self.data.tokenizer.pad_token_id).to(device)

    def _generator(self, device: torch.device) -> torch.Generator:
        return torch.Generator(device).manual_seed(self.seed)

    def _append(self, file: Path, table: Table) -> None:
        new = not file.exists()
        with file.open("a", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            writer.writerows(([table.columns] if new else []) + table.rows)

    def state_dict(self) -> dict[str, int]:
        return {"validations": self.validations}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.validations = state["validations"]
