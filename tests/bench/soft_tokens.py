"""`make bench`: soft tokens from a few latents of each slot, beside all of them, and in vocabularies of every size.

The dense side is the leanest there is: one table of slots × K normals in float32, changed in place until it is the
weights. (The published code has six of them.) The sparse side is what training runs: `SoftCorruption.corrupt`, with
the noise of a step. Both take turns in this process on one thread, and time and memory are measured in different turns,
after a first one that is not counted. Memory is every byte that torch asks for, at the worst moment.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from rich.console import Console
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from training_speed import grid, machine

from dllm_lightning.process import PerPlace, Relaxed, SoftCorruption, UniformDiffusion
from dllm_lightning.types import Canvas, Vocab

WIDTH = 50_368
WIDTHS = (1_000, 10_000, 50_368, 250_000)
TAU = 0.02

Result = tuple[float, float]
"""Seconds and bytes."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of soft tokens, sparse and dense.")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--rows", type=int, default=4, help="rows of 512 slots")
    parser.add_argument("--top-k", type=int, nargs="+", default=[2, 8], help="latents of others kept in a slot")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    torch.set_num_threads(1)

    canvas = rows(options.rows).to(options.device)
    all_of_them = dense(canvas, WIDTH)
    few = {k: sparse(canvas, WIDTH, k) for k in options.top_k}
    sizes = {width: sparse(canvas, width, options.top_k[-1]) for width in WIDTHS}
    for once in (all_of_them, *few.values(), *sizes.values()):
        once()
    rounds = [
        {
            "dense": measured(all_of_them, options.device),
            **{f"k = {k}": measured(once, options.device) for k, once in few.items()},
            **{f"{width:,}": measured(once, options.device) for width, once in sizes.items()},
        }
        for _ in range(options.rounds)
    ]
    report(rounds, [*few], options)


def rows(count: int) -> Canvas:
    """Rows of 512 slots, all of them in question, whose tokens any of the vocabularies has."""
    shape = (count, 512)
    ids = torch.randint(WIDTHS[0], shape, generator=torch.Generator().manual_seed(0))
    return Canvas(ids, torch.ones(shape, dtype=torch.bool), torch.ones(shape, dtype=torch.long))


def sparse(canvas: Canvas, width: int, top_k: int) -> Callable[[], object]:
    states = torch.arange(width)
    vocab = Vocab(width + 1, width + 1, mask_id=width, pad_id=0, eos_id=1, noise_ids=states)
    soften = SoftCorruption(UniformDiffusion(vocab, Relaxed(classes=width)), top_k)
    t = PerPlace(seed=0, step=0, first=0, rows=len(canvas.ids)).times(canvas)
    return lambda: soften.corrupt(canvas, t, PerPlace(seed=0, step=0, first=0, rows=len(canvas.ids)), TAU)


def dense(canvas: Canvas, width: int) -> Callable[[], tuple[Tensor, Tensor]]:
    x = canvas.ids.flatten()
    t = PerPlace(seed=0, step=0, first=0, rows=len(canvas.ids)).times(canvas).flatten()
    gamma = Relaxed(classes=width).gamma(t)

    def once() -> tuple[Tensor, Tensor]:
        latents = torch.randn(len(x), width, device=x.device).mul_(torch.sigmoid(gamma).sqrt()[:, None])
        latents.scatter_add_(1, x[:, None], torch.sigmoid(-gamma).sqrt()[:, None])
        largest, hard = latents.max(1, keepdim=True)
        weights = latents.sub_(largest).div_(TAU).exp_()
        return hard, weights.div_(weights.sum(1, keepdim=True))

    return once


def measured(once: Callable[[], object], device: str) -> Result:
    return (seconds(once, device), peak(once, device))


def seconds(once: Callable[[], object], device: str) -> float:
    """CPU-seconds of one thread, or seconds of the device; as many turns as fill a fifth of a second."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    start, turns = clock(), 0
    while clock() - start < 0.2:
        once()
        if device != "cpu":
            torch.cuda.synchronize()
        turns += 1
    return (clock() - start) / turns


def peak(once: Callable[[], object], device: str) -> float:
    """The most bytes held at once, above those held before."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        once()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        kept = once()
    del kept
    held = most = 0
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def report(rounds: list[dict[str, Result]], ks: list[int], options: argparse.Namespace) -> None:
    out = Console(width=100)
    slots = options.rows * 512
    out.print(f"machine  {machine(options.device)}", soft_wrap=True, highlight=False)
    out.print(f"slots    {slots:,}; tau = {TAU}; medians of {len(rounds)} rounds", highlight=False)

    title = f"Soft tokens at K = {WIDTH:,}"
    table = grid(title, ("", "ms", "MiB", "dense : it, time", "memory", "bar", ""))
    for side in ("dense", *(f"k = {k}" for k in ks)):
        table.add_row(side, *figures(rounds, side), *against(rounds, side))
    out.print(table)

    table = grid(f"Sparse, k = {ks[-1]}, in growing vocabularies", ("K", "ms", "MiB", "it : K = 1,000, time", "memory"))
    for width in WIDTHS:
        ratios = [ratio(rounds, f"{width:,}", f"{WIDTHS[0]:,}", unit) for unit in (0, 1)]
        table.add_row(f"{width:,}", *figures(rounds, f"{width:,}"), *(f"{number:.2f}" for number in ratios))
    out.print(table)


def against(rounds: list[dict[str, Result]], side: str) -> tuple[str, ...]:
    if side == "dense":
        return ("", "", "", "")
    ratios = [ratio(rounds, "dense", side, unit) for unit in (0, 1)]
    verdict = "[green]met[/]" if min(ratios) >= 100 else "[red]missed[/]"
    return (*(f"{number:,.0f}" for number in ratios), "≥ 100", verdict)


def figures(rounds: list[dict[str, Result]], side: str) -> tuple[str, str]:
    time_taken, memory = (median(turn[side][unit] for turn in rounds) for unit in (0, 1))
    return f"{time_taken * 1e3:,.1f}", f"{memory / 2**20:,.2f}"


def ratio(rounds: list[dict[str, Result]], over: str, under: str, unit: int) -> float:
    return median(turn[over][unit] / turn[under][unit] for turn in rounds)


if __name__ == "__main__":
    main()
