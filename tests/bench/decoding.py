"""`make bench`: how fast we write, and in how much memory, beside the plain loop of LLaDA (arXiv:2502.09992).

plain reads the whole text at every step, with logits and softmax at every slot, and writes one token. Ours ask about
hidden slots only, may keep keys and values, and may write several tokens a step. All have the same random network, one
text and blocks of 32 slots; they take turns on one thread, and ratios are taken round by round, so that a machine which
is busy for a while slows both. The plain loop does the same at each step, so some of its steps stand for all.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from training_speed import grid, machine

from dllm_lightning.backbone import ModernBert
from dllm_lightning.backbone.cache import Cache, Delayed, Dual, Prefix, Vicinity
from dllm_lightning.model.denoiser import NetworkDenoiser
from dllm_lightning.noise import LogLinear
from dllm_lightning.process import MaskedDiffusion
from dllm_lightning.sampler import Blockwise, Reveal, Several
from dllm_lightning.types import Canvas, Vocab

WIDTH, BLOCK, CHUNK = 50_368, 32, 128
SIZES = {
    "model_type": "modernbert",
    "vocab_size": WIDTH,
    "num_hidden_layers": 6,
    "hidden_size": 256,
    "num_attention_heads": 4,
    "intermediate_size": 384,
    "initializer_range": 0.06,
    **{f"{name}_token_id": number for number, name in enumerate(("pad", "bos", "eos", "cls", "sep"))},
}
VOCAB = Vocab(WIDTH, WIDTH - 80, WIDTH - 84, pad_id=0, eos_id=2, noise_ids=torch.arange(5, WIDTH - 90))
PROCESS = MaskedDiffusion(VOCAB, LogLinear())
CASES = {"(a) prompt 128, answer 64": (128, 64, 8), "(b) prompt 512, answer 128": (512, 128, 4)}
"""Lengths, and how many steps of the plain loop are timed."""
OURS: dict[str, tuple[Cache | None, int]] = {
    "sparse logits": (None, 1),
    "+ prefix cache": (Prefix(), 1),
    "+ dual cache": (Dual(), 1),
    "+ vicinity cache": (Vicinity(), 1),
    "+ delayed cache": (Delayed(), 1),
    "+ dual cache, 4 a step": (Dual(), 4),
    "+ dual cache, 8 a step": (Dual(), 8),
    "+ delayed cache, 8 a step": (Delayed(), 8),
}
BARS = {
    "+ dual cache": {"(a)": 4, "(b)": 10},
    "+ delayed cache": {"(a)": 4, "(b)": 10},
    "+ dual cache, 8 a step": {"(a)": 25, "(b)": 25},
}
RAGGED = (128, 40, 96, 64, 120, 16, 80, 112)
"""Prompts of eight texts that are written together, an answer of 32 tokens to each."""
TOGETHER = ("sparse logits", "+ prefix cache", "+ dual cache", "+ dual cache, 4 a step")
SHAPES = ((1, 128, 64), (8, 128, 64), (8, 512, 64), (8, 512, 128), (32, 512, 128))
"""Rows, prompt and answer of the calls whose memory is measured."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and memory of decoding, beside the plain loop.")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--threads", type=int, default=1, help="more than one: seconds instead of CPU-seconds")
    parser.add_argument("--only", choices=("speed", "batch", "memory"), help="one of the three parts")
    parser.add_argument("--peak", type=int, nargs=3, help="measure one call (rows, prompt, answer), and print JSON")
    options = parser.parse_args()
    if options.peak:
        print(json.dumps(peak(*options.peak)))
        return
    torch.set_num_threads(options.threads)
    out = Console(width=100)
    out.print(f"machine  {machine('cpu')}", soft_wrap=True, highlight=False)
    out.print(f"model    ModernBERT, 6 layers × 256, K = {WIDTH:,}, random, float32", highlight=False)
    if options.only in (None, "speed"):
        for case, lengths in CASES.items():
            out.print(speed(case, *lengths, options.rounds))
    if options.only in (None, "batch"):
        out.print(together(options.rounds))
    if options.only in (None, "memory"):
        out.print(memory())


def network() -> ModernBert:
    torch.manual_seed(0)
    return ModernBert(config=SIZES, chunk=CHUNK).eval()


def text(prompt: int, answer: int, seed: int = 0) -> tuple[list[int], list[bool]]:
    """A random prompt and an empty answer."""
    ids = torch.randint(5, WIDTH - 90, (prompt,), generator=torch.Generator().manual_seed(seed)).tolist()
    return ids + [VOCAB.mask_id] * answer, [False] * prompt + [True] * answer


@torch.no_grad()
def plain(model: Any, ids: Tensor, visible: Tensor | None, prompt: int, steps: int, block: int, mask: int) -> Tensor:
    """The first steps of LLaDA's loop: of all masks up to the end of the block, the surest becomes a token."""
    x = ids.clone()
    for step in range(steps):
        end = prompt + (step // block + 1) * block
        logits = model(input_ids=x, attention_mask=visible).logits
        x0 = logits.argmax(-1)
        sure = logits.softmax(-1).gather(-1, x0[..., None]).squeeze(-1)
        sure[:, end:] = -torch.inf
        sure = torch.where(x == mask, sure, -torch.inf)
        chosen = sure.argmax(-1, keepdim=True)
        x.scatter_(1, chosen, x0.gather(1, chosen))
    return x


def ours(backbone: ModernBert, canvas: Canvas, cache: Cache | None, tokens: int) -> Tensor:
    sampler = Blockwise(inner=Reveal(pace=Several(tokens)), block=BLOCK, stop=False)
    return sampler.sample(NetworkDenoiser(backbone, PROCESS, cache), canvas)


def timed(once: Callable[[], Tensor]) -> float:
    """CPU-seconds on one thread, else seconds."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    once()
    return clock() - start


def speed(case: str, prompt: int, answer: int, steps: int, rounds: int) -> Table:
    """Milliseconds per token of each side, and how often it fits into the plain loop's."""
    backbone = network()
    canvas = Canvas.left_padded([text(prompt, answer)], VOCAB.pad_id)
    sides: dict[str, tuple[Callable[[], Tensor], int]] = {
        "plain": (lambda: plain(backbone.network, canvas.ids, None, prompt, steps, BLOCK, VOCAB.mask_id), steps),
        **{name: ((lambda how=how: ours(backbone, canvas, *how)), answer) for name, how in OURS.items()},
    }
    first = sides["plain"][0]()
    same = torch.where(first == VOCAB.mask_id, first, ours(backbone, canvas, None, 1))
    assert torch.equal(first, same), "the plain loop and ours write other tokens"
    turns = []
    for number in range(rounds):
        print(f"\r{case}: round {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
        turns.append({name: timed(once) / tokens * 1e3 for name, (once, tokens) in sides.items()})
    print("\r", end="", file=sys.stderr)
    table = grid(case, ("", "ms a token", "tokens/s", "times as fast", "lowest", "highest", "bar", ""))
    for name in sides:
        taken = median(turn[name] for turn in turns)
        ratios = [turn["plain"] / turn[name] for turn in turns]
        cells = (f"{taken:,.1f}", f"{1e3 / taken:,.1f}", *spread(ratios))
        table.add_row(name, *cells, *verdict(median(ratios), BARS.get(name, {}).get(case[:3])))
    return table


def together(rounds: int) -> Table:
    """Eight texts of many lengths in one batch, beside one after the other."""
    backbone = network()
    texts = [text(prompt, BLOCK, seed) for seed, prompt in enumerate(RAGGED)]
    batch, alone = Canvas.left_padded(texts, VOCAB.pad_id), [Canvas.left_padded([each], VOCAB.pad_id) for each in texts]
    table = grid(
        f"(c) eight ragged texts of {BLOCK} tokens",
        ("", "ms a token", "in turn", "times as fast", "lowest", "highest", "bar", ""),
    )
    for name in TOGETHER:
        print(f"\r(c) {name:<30}", end="", file=sys.stderr, flush=True)
        how = OURS[name]
        written = ours(backbone, batch, *how)
        for row, canvas in enumerate(alone):
            assert torch.equal(written[row, -canvas.ids.shape[1] :], ours(backbone, canvas, *how)[0]), name
        turns = [
            [timed(lambda: ours(backbone, batch, *how)), timed(lambda: [ours(backbone, each, *how) for each in alone])]  # noqa: B023
            for _ in range(rounds)
        ]
        ratios = [apart / one for one, apart in turns]
        ms = [median(turn[side] for turn in turns) / (8 * BLOCK) * 1e3 for side in (0, 1)]
        table.add_row(name, *(f"{each:,.1f}" for each in ms), *spread(ratios), *verdict(median(ratios), 3))
    print("\r", end="", file=sys.stderr)
    return table


def memory() -> Table:
    """What one call takes at its peak beyond a network that has been called once, in fresh processes."""
    table = grid(
        "(d) peak memory of a call about every slot of the answers, dual cache",
        ("rows", "length", "slots", "MiB", "the logits of all slots, MiB", "bar", ""),
    )
    for rows, prompt, answer in SHAPES:
        command = [sys.executable, __file__, "--peak", *map(str, (rows, prompt, answer))]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | threads)
        if done.returncode:
            sys.exit(f"Measuring the memory failed:\n{done.stderr[-3000:]}")
        taken = json.loads(done.stdout.strip().splitlines()[-1]) / 2**20
        whole = rows * (prompt + answer) * WIDTH * 4 / 2**20
        table.add_row(*map(str, (rows, prompt + answer, rows * answer)), f"{taken:,.0f}", f"{whole:,.0f}")
    return table


def peak(rows: int, prompt: int, answer: int) -> int:
    torch.set_num_threads(1)
    backbone = network()
    ours(backbone, Canvas.left_padded([text(4, 2)], VOCAB.pad_id), Dual(), 1)  # everything is loaded
    before = held()
    canvas = Canvas.left_padded([text(prompt, answer, seed) for seed in range(rows)], VOCAB.pad_id)
    walk = Reveal(pace=Several(answer // 2)).trajectory(NetworkDenoiser(backbone, PROCESS, Dual()), canvas)
    assert len([*walk]) == 2  # one call about everything, and one with the cache
    return held() - before


def held() -> int:
    """The most bytes so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def spread(ratios: list[float]) -> tuple[str, ...]:
    return tuple(f"{number:.1f}" for number in (median(ratios), min(ratios), max(ratios)))


def verdict(ratio: float, bar: float | None) -> tuple[str, str]:
    return ("", "") if bar is None else (f"≥ {bar}", "[green]met[/]" if ratio >= bar else "[red]missed[/]")


if __name__ == "__main__":
    main()
