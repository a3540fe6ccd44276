"""One side of the comparison, measured in a process of its own: `python sides.py SIDE '{"steps": 4, ...}'` prints JSON.

All sides train the same network on the same documents, 32 rows of 512 slots a step, with the same optimizer:

- original: `transformers.Trainer`; one document per row, padded to 512; logits and loss at every slot.
- ours: what `python -m dllm_lightning.train` builds, with everything that it logs; packed rows.
- bare: the packed rows and the network of ours in a plain loop, without Lightning.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import corpus
import lightning as L
import numpy as np
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor

from dllm_lightning.assemble import Run, assemble
from dllm_lightning.launch import conf_dir
from dllm_lightning.process import Random
from dllm_lightning.types import Canvas

ORIGINAL = (
    "process/hiding=floor_count",
    "process/replace=bert",
    "loss=masked_ce",
    "noise.min_ratio=0.15",
    "noise.max_ratio=0.99",
)
"""The corruption and the loss of the original recipe."""

RECIPE = (
    "run=bench",
    "backbone=modernbert_small",
    "data/template=original",
    "logger=csv",
    "trainer.limit_val_batches=0",
    "data.num_workers=0",  # so that the work of loading is counted
)


class Options(NamedTuple):
    """How long to measure, and where."""

    steps: int = 4
    warmup: int = 1
    rows: int = 32
    device: str = "cpu"
    precision: str = "32-true"
    cache: str = ""
    recipe: tuple[str, ...] = ORIGINAL
    """What is trained."""
    more: tuple[str, ...] = ()
    """Further overrides of our configuration."""


class Clock:
    """Counts tokens, CPU seconds and seconds from the end of the warm-up to the end of the last step."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.done = self.tokens = self.asked = 0
        self.cpu = self.wall = 0.0

    def step(self, tokens: int, asked: int) -> None:
        """Called at the end of each step, with the real tokens and the scored slots in it."""
        if self.options.device != "cpu":
            torch.cuda.synchronize()
        self.done += 1
        if self.done == self.options.warmup:
            self.cpu, self.wall = time.process_time(), time.perf_counter()
        elif self.done > self.options.warmup:
            self.tokens += tokens
            self.asked += asked
        if self.done == self.options.warmup + self.options.steps:
            self.cpu, self.wall = time.process_time() - self.cpu, time.perf_counter() - self.wall

    def result(self) -> dict[str, float]:
        steps = self.options.steps
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if self.options.device != "cpu":
            peak = torch.cuda.max_memory_allocated()
        per_step = {"tokens": self.tokens / steps, "asked": self.asked / steps}
        return per_step | {"cpu": self.cpu / steps, "wall": self.wall / steps, "peak": peak}


def configured(options: Options) -> DictConfig:
    chosen = [
        *RECIPE,
        *options.recipe,
        *corpus.overrides(Path(options.cache)),
        f"data.batch_size={options.rows}",
        f"trainer.max_steps={options.warmup + options.steps}",
        f"trainer.precision={options.precision}",
        f"trainer.accelerator={'cpu' if options.device == 'cpu' else 'gpu'}",
        f"folder='{options.cache}/run'",
        *options.more,
    ]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", chosen)


def original(run: Run, options: Options, clock: Clock) -> None:
    """The recipe that this project grew from, as its Trainer runs it."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    vocab, documents = run.module.process.vocab, run.data.documents("train")
    lengths = np.argsort(documents.lengths, kind="stable")
    random = np.random.default_rng(0)

    def rows() -> Iterator[int]:
        """Batches of documents spread evenly over all lengths, so that a few steps speak for the whole."""
        while True:
            places = (np.arange(options.rows) + random.random(options.rows)) / options.rows
            yield from lengths[(places * len(lengths)).astype(int)].tolist()

    chosen = rows()
    steps = options.warmup + options.steps
    examples = [padded(*documents[[next(chosen)]][0], pad_id=vocab.pad_id) for _ in range(steps * options.rows)]
    counted: list[tuple[int, int]] = []

    def collate(examples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        batch = {name: torch.stack([example[name] for example in examples]) for name in examples[0]}
        batch["input_ids"], batch["labels"] = hidden(batch.pop("ids"), batch.pop("answer"), vocab)
        counted.append((int(batch["attention_mask"].sum()), int((batch["labels"] != -100).sum())))
        return batch

    class Timing(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step(*counted[clock.done])

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=options.rows,
            max_steps=steps,
            learning_rate=1e-4,
            weight_decay=0.01,
            max_grad_norm=1.0,
            bf16=options.precision == "bf16-mixed",
            use_cpu=options.device == "cpu",
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        network: Any = run.module.backbone.network
        Trainer(network, arguments, collate, examples, callbacks=[Timing()]).train()


def padded(ids: np.ndarray, answer: np.ndarray, pad_id: int, length: int = 512) -> dict[str, Tensor]:
    blank = (0, length - len(ids))
    return {
        "ids": torch.from_numpy(np.pad(ids, blank, constant_values=pad_id).astype(np.int64)),
        "answer": torch.from_numpy(np.pad(answer, blank)),
        "attention_mask": torch.from_numpy(np.pad(np.ones(len(ids), np.int64), blank)),
    }


def hidden(ids: Tensor, answer: Tensor, vocab: Any) -> tuple[Tensor, Tensor]:
    """Masks 15 to 99 % of each answer, an exact count: 80 % masks, 10 % random tokens, 10 % kept; labels there."""
    inputs, labels = ids.clone(), torch.full_like(ids, -100)
    for row, slots in enumerate(map(torch.nonzero, answer)):
        ratio = 0.15 + 0.84 * torch.rand(())
        slots = slots.squeeze(1)[torch.randperm(len(slots))[: int(ratio * len(slots))]]
        labels[row, slots] = ids[row, slots]
        fate = torch.rand(len(slots))
        inputs[row, slots[fate < 0.8]] = vocab.mask_id
        other = slots[(fate >= 0.8) & (fate < 0.9)]
        inputs[row, other] = torch.randint(vocab.length, (len(other),))
    return inputs, labels


def ours(run: Run, options: Options, clock: Clock) -> None:
    class Timing(L.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            clock.step(int((batch.clean.segment > 0).sum()), int(batch.asked.sum()))

    run.trainer.callbacks.append(Timing())
    run.trainer.fit(run.module, run.data)


def bare(run: Run, options: Options, clock: Clock) -> None:
    """Corrupt, score at the hidden slots in chunks, backward, clip, AdamW: nothing else."""
    module = run.module.to(options.device).train()
    process, backbone, loss = module.process, module.backbone, module.loss
    optimizer = module.optimizer.optimizer(module)
    run.data.prepare_data()
    autocast = torch.autocast(options.device, torch.bfloat16, enabled=options.precision == "bf16-mixed")
    batches = iter(run.data.train_dataloader())
    for step in range(options.warmup + options.steps):
        canvas: Canvas = next(batches).to(options.device)
        draws = Random(torch.Generator(options.device).manual_seed(step))
        batch = process.corrupt(canvas, draws.times(canvas), draws)
        slots, share = batch.slots(), loss.share(batch)

        def score(logits: Tensor, start: int, stop: int) -> Tensor:
            chunk = slots.chunk(start, stop)  # noqa: B023, read within this turn of the loop
            return -process.log_truth(logits, chunk)

        with autocast:
            weight = share.weight / share.total
            nats, _ = backbone(batch.x_t, batch.t, canvas.segment, slots.at, score=score, weight=weight)
        nats.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.step(int((canvas.segment > 0).sum()), len(slots.at))


SIDES: dict[str, Callable[[Run, Options, Clock], None]] = {"original": original, "ours": ours, "bare": bare}


def main(side: str, options: Options) -> None:
    if options.device == "cpu":
        torch.set_num_threads(1)
    clock = Clock(options)
    SIDES[side](assemble(configured(options)), options, clock)
    print(json.dumps(clock.result()))


if __name__ == "__main__":
    main(sys.argv[1], Options(**json.loads(sys.argv[2])))
