"""A network of a few thousand weights, documents with short and long answers, and trainers that do nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from dllm_lightning.loss import Loss, WeightedCE
from dllm_lightning.model import MDM, AdamW
from dllm_lightning.noise import LogLinear
from dllm_lightning.process import MaskedDiffusion, PerDocument
from dllm_lightning.types import Canvas, Corrupted
from tests.backbone.nets import K, modernbert
from tests.laws.parts import row, stack, vocabulary

VOCAB = vocabulary(K, first_noise=3)
ADAMW = AdamW(lr=1e-2, warmup=0, decay="constant")
Documents = Sequence[tuple[list[int], int]]
"""The ids of each, and how many of them are its prompt."""


def module(loss: Loss | None = None, kind: type[MDM] = MDM, **options: Any) -> MDM:
    """Always the same weights."""
    parts = {"optimizer": ADAMW, "process": MaskedDiffusion(VOCAB, LogLinear())} | options
    return kind(backbone=modernbert(chunk=32), loss=loss or WeightedCE(), **parts)


class NoiseOfDocuments(MDM):
    """Trains on noise that belongs to the documents, so that it is the same however they are batched."""

    def corrupt(self, canvas: Canvas) -> Corrupted:
        draws = PerDocument(self.seed)
        return self.process.corrupt(canvas, draws.times(canvas), draws)


def documents(count: int, seed: int = 0) -> list[tuple[list[int], int]]:
    """Prompts of 1 to 5 tokens; every third answer is long, the others have a slot or two."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for number in range(count):
        prompt = int(torch.randint(1, 6, (), generator=generator))
        answer = 30 if number % 3 == 0 else 1 + number % 2
        made.append((torch.randint(3, VOCAB.mask_id, (prompt + answer,), generator=generator).tolist(), prompt))
    return made


def canvas(documents: Documents, left: int = 0, extra: int = 0) -> Canvas:
    """One document per row, between `left` and at least `extra` slots of padding; one empty row if there are none."""
    length = left + max((len(ids) for ids, _ in documents), default=1) + extra
    if not documents:
        return row(length=length)
    return stack(*(row(ids, length=length, prompt=prompt, left=left) for ids, prompt in documents))


def packed(documents: Documents) -> Canvas:
    """All documents in one row."""
    fields: tuple[list[int], list[bool], list[int]] = ([], [], [])
    for number, (ids, prompt) in enumerate(documents, start=1):
        for field, values in zip(
            fields, (ids, [place >= prompt for place in range(len(ids))], [number] * len(ids)), strict=True
        ):
            field.extend(values)  # type: ignore[arg-type]
    return Canvas(*(torch.tensor([field]) for field in fields))


class Data(L.LightningDataModule):
    """Batches as they are given: for each rank a list of canvases for training, and canvases for validation."""

    def __init__(self, *train: Sequence[Canvas], validation: Sequence[Canvas] = ()) -> None:
        super().__init__()
        self.train, self.validation = train, validation

    def train_dataloader(self) -> Any:
        return DataLoader(list(self.train[self.trainer.global_rank]), batch_size=None)  # type: ignore[arg-type, union-attr]

    def val_dataloader(self) -> Any:
        return DataLoader(list(self.validation), batch_size=None)  # type: ignore[arg-type]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        trainer: Any = self.trainer
        return trainer.lightning_module.corrupt(batch) if trainer.training else batch


class Recorder(L.Callback):
    """Writes down every optimizer step's gradients and loss, and the times of every batch; each rank for itself."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.gradients, self.times = folder, [], []
        self.losses: list[float] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.optimizers[0].register_step_post_hook(lambda *_: self.gradients.append(gradients(pl_module)))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.times.append(batch.t[batch.clean.heads()])
        if pl_module._micro_batch == 0:
            self.losses.append(float(trainer.callback_metrics["train/loss"]))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        written = {"gradients": self.gradients, "losses": self.losses, "times": self.times}
        torch.save(written, self.folder / f"{trainer.global_rank}.pt")


def gradients(module: torch.nn.Module) -> dict[str, Tensor]:
    """Whole ones, where they are sharded."""
    found = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return {name: (g.full_tensor() if isinstance(g, DTensor) else g).clone() for name, g in found.items()}


def fit(model: MDM, data: Data, folder: Path, **options: Any) -> dict[str, Any]:
    """What a Recorder wrote on rank 0."""
    run(model, data, folder, **options)
    return torch.load(folder / "0.pt")


def run(model: MDM, data: Data, folder: Path, **options: Any) -> None:
    """Trains with a Recorder. On one of several ranks: another's record may not be written yet when this returns."""
    folder.mkdir(parents=True, exist_ok=True)
    quiet(folder, callbacks=[Recorder(folder)], **options).fit(model, data)


def quiet(folder: Path, **options: Any) -> L.Trainer:
    """A trainer on the CPU that writes and says nothing."""
    silence = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    silence |= {"enable_model_summary": False, "num_sanity_val_steps": 0, "use_distributed_sampler": False}
    return L.Trainer(**({"accelerator": "cpu", "default_root_dir": folder} | silence | {"max_epochs": 1} | options))
