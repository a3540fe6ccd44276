"""`make bench`: how fast a trained model answers, and how many of its answers stay right.

The model of the quickstart answers questions that it has never seen, from the test split of its data. The plain loop of
LLaDA (arXiv:2502.09992) is asked one question at a time, as its authors ask it, and several at a time; so are we. It
writes one token a step, and takes logits at every slot of the text. All sides take turns on one thread, and ratios are
taken round by round.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from decoding import plain, spread, verdict
from rich.console import Console
from rich.table import Table
from training_speed import grid, machine

from dllm_lightning.backbone.cache import Cache, Dual
from dllm_lightning.data.asked import Question
from dllm_lightning.evaluation import Exercise, Subject, data_of, exercises
from dllm_lightning.loading import load
from dllm_lightning.sampler import EntropyBound, LeastEntropy, Reveal, Sampler, Threshold

ONE_BY_ONE, FEW, MANY = 1, 8, 128
SAMPLERS: dict[str, tuple[Sampler, Cache | None]] = {
    "one token a step": (Reveal(), None),
    "threshold 0.9": (Reveal(pace=Threshold(0.9)), None),
    "entropy bound 0.1": (Reveal(order=LeastEntropy(), pace=EntropyBound(0.1)), None),
    "entropy bound 0.3": (Reveal(order=LeastEntropy(), pace=EntropyBound(0.3)), None),
    "entropy bound 0.1, dual cache": (Reveal(order=LeastEntropy(), pace=EntropyBound(0.1)), Dual()),
}
PLAIN = "plain loop"
BATCH = 3
"""Times as fast as one by one by the same sampler, at `FEW` at a time."""
BAR, ALIKE = 25, 0.01
"""Times as fast as the plain loop one by one, at `MANY` at a time, with as many right answers but for this share."""

Texts = list[str]


@dataclass(frozen=True, eq=False)
class Side:
    """Who answers, so many questions at a time, and by which loop."""

    batch: int
    name: str
    subject: Subject
    loop: Callable[[Subject, Sequence[Exercise]], Texts]

    def texts(self, asked: Sequence[Exercise]) -> Texts:
        return self.loop(self.subject, asked)


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of a trained model's answers, and how many are right.")
    parser.add_argument("ckpt", help="the folder of a run on the toy chat: runs/quickstart")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--questions", type=int, default=512)
    options = parser.parse_args()
    if not Path(options.ckpt).exists():
        print(f"There is no {options.ckpt}, so the speed of its answers is not measured: make demo trains it.")
        return
    torch.set_num_threads(1)
    out = Console(width=130)
    out.print(f"machine  {machine('cpu')}", soft_wrap=True, highlight=False)
    out.print(f"model    {options.ckpt}, {options.questions} questions of the test split", highlight=False)
    for table in compared(options.ckpt, options.questions, options.rounds):
        out.print(table)


def subject_of(ckpt: str, batch: int, sampler: Sampler, cache: Cache | None) -> Subject:
    loaded = load(ckpt, torch.device("cpu"))
    length = loaded.config["data"]["answer_length"] or 64
    return Subject(loaded, loaded.denoiser(cache), sampler, length, batch, 0, torch.device("cpu"))


def by_us(subject: Subject, asked: Sequence[Exercise]) -> Texts:
    speaker, size = subject.speaker(), subject.batch_size
    batches = [asked[i : i + size] for i in range(0, len(asked), size)]
    return [said.text for each in batches for said in speaker.answers([Question(e.messages) for e in each])]


def by_plain_loop(subject: Subject, asked: Sequence[Exercise]) -> Texts:
    speaker, size, template = subject.speaker(), subject.batch_size, subject.loaded.template
    network: Any = subject.loaded.backbone
    mask, texts = template.tokenizer.mask_token_id, []
    for start in range(0, len(asked), size):
        canvas = speaker.canvas([Question(e.messages) for e in asked[start : start + size]])
        prompt = canvas.ids.shape[1] - subject.length
        visible = (canvas.segment > 0).long()
        written = plain(network.network, canvas.ids, visible, prompt, subject.length, subject.length, mask)
        texts += [template.answer(row) for row in written[:, prompt:].tolist()]
    return texts


def sides(ckpt: str) -> list[Side]:
    found = []
    for size in (ONE_BY_ONE, FEW, MANY):
        subjects = {name: subject_of(ckpt, size, *how) for name, how in SAMPLERS.items()}
        found.append(Side(size, PLAIN, next(iter(subjects.values())), by_plain_loop))
        found += [Side(size, name, subject, by_us) for name, subject in subjects.items()]
    return found


def compared(ckpt: str, questions: int, rounds: int) -> list[Table]:
    """A table for questions one by one, for a few at a time, and for many."""
    every = sides(ckpt)
    subject = every[0].subject
    asked = exercises(subject, data_of(subject, None, "test"), "test", questions)
    said = {side: side.texts(asked) for side in every}  # which also wakes everything up
    first = every[0]
    assert said[first] == said[every[1]], "the plain loop and ours give other answers"
    turns: list[dict[Side, float]] = []
    for number in range(rounds):
        print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
        turns.append({side: seconds(side, asked) for side in every})
    print("\r", end="", file=sys.stderr)
    right = {
        side: sum(bool(e.judge and e.judge(text)) for e, text in zip(asked, said[side], strict=True)) for side in every
    }

    def faster(side: Side, than: Side) -> list[float]:
        return [turn[than] / turn[side] for turn in turns]

    tables = []
    for size in (ONE_BY_ONE, FEW, MANY):
        here = [side for side in every if side.batch == size]
        heads = ("", "right", "tokens/s", "plain loop likewise", "itself one by one", "plain loop one by one")
        table = grid(f"{size} at a time: how many times as fast as ...", (*heads, "lowest", "highest", "bar", ""))
        for side in here:
            alone = next(other for other in every if (other.batch, other.name) == (ONE_BY_ONE, side.name))
            itself, apart = median(faster(side, alone)), faster(side, first)
            alike = abs(right[side] - right[first]) <= ALIKE * len(asked)
            told: tuple[str, str] = ("", "")
            if size == FEW and side.name != PLAIN:
                told = verdict(itself if said[side] == said[alone] else 0.0, BATCH)
            elif size == MANY and side.name.startswith(("threshold", "entropy")):
                told = verdict(median(apart) if alike else 0.0, BAR)
            pace = len(asked) * subject.length / median(turn[side] for turn in turns)
            likewise = median(faster(side, here[0]))
            cells = (f"{right[side] / len(asked):.1%}", f"{pace:,.0f}", f"{likewise:.1f}", f"{itself:.1f}")
            table.add_row(side.name, *cells, *spread(apart), *told)
        tables.append(table)
    return tables


def seconds(side: Side, asked: Sequence[Exercise]) -> float:
    """CPU-seconds."""
    start = time.process_time()
    side.texts(asked)
    return time.process_time() - start


if __name__ == "__main__":
    main()
