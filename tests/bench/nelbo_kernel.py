"""`make bench`: the bound of uniform noise with its gradient in closed form, beside the same through autograd.

Both sides make the value and the gradient of the logits (N K) of one chunk. plain: `rate` of the log-softmax, and
autograd's way back. ours: `Rate`. They take turns, each in a process of its own, on one thread. Memory is the peak of
what the process holds (on a device: of what is allocated there) above what it held with the logits alone.
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

import torch
from rich.console import Console
from torch import Tensor
from training_speed import Result, grid, machine

from dllm_lightning.noise import LogLinear
from dllm_lightning.process import UniformDiffusion
from dllm_lightning.types import Slots, Vocab

WIDTH = 50_368
SIDES = ("plain", "ours")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of Duo's bound and its gradient.")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--slots", type=int, default=128, help="slots in a chunk")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--side", choices=SIDES, help="measure one side, and print JSON")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measured(options.side, options.slots, options.device)))
        return
    rounds = [{side: in_own_process(side, options) for side in SIDES} for _ in range(options.rounds)]
    report(rounds, options)


def in_own_process(side: str, options: argparse.Namespace) -> Result:
    command = [sys.executable, __file__, "--side", side, "--slots", str(options.slots), "--device", options.device]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | threads)
    if done.returncode:
        sys.exit(f"The side {side!r} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measured(side: str, count: int, device: str) -> Result:
    """CPU-seconds (on a device: seconds) of one turn, the best of five, and bytes at the peak of all."""
    torch.set_num_threads(1)
    vocab = Vocab(WIDTH, WIDTH - 80, WIDTH - 84, pad_id=0, eos_id=1, noise_ids=torch.arange(2, WIDTH - 90))
    process, generator = UniformDiffusion(vocab, LogLinear()), torch.Generator().manual_seed(0)
    x0, other = torch.randint(2, WIDTH - 90, (2, count), generator=generator).to(device)
    t = torch.rand(count, generator=generator).to(device)
    at = torch.arange(count, device=device)
    slots = Slots(x0, torch.where(at % 2 == 0, x0, other), t, at)
    once = plain if side == "plain" else ours
    once(process, torch.zeros(2, WIDTH, device=device), slots.chunk(0, 2))  # everything is loaded

    logits = torch.empty(count, WIDTH, device=device)
    logits.normal_()
    before, clock = held(device), time.process_time if device == "cpu" else time.perf_counter
    turns = []
    for _ in range(6):
        logits.detach_().normal_()
        synchronize(device)
        start = clock()
        once(process, logits, slots)
        synchronize(device)
        turns.append(clock() - start)
    return {"seconds": min(turns[1:]), "peak": held(device) - before, "logits": logits.nbytes}


def plain(process: UniformDiffusion, logits: Tensor, slots: Slots) -> Tensor:
    logits.requires_grad_()
    nats = process.nelbo(process.log_p_x0(logits, slots), slots)
    return torch.autograd.grad(nats.sum(), logits)[0]


def ours(process: UniformDiffusion, logits: Tensor, slots: Slots) -> Tensor:
    logits.requires_grad_()
    return torch.autograd.grad(process.nelbo_of_logits(logits, slots).sum(), logits)[0]


def held(device: str) -> int:
    """The most bytes so far."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def report(rounds: list[dict[str, Result]], options: argparse.Namespace) -> None:
    out = Console(width=100)
    out.print(f"machine  {machine(options.device)}", soft_wrap=True, highlight=False)
    size = rounds[0]["ours"]["logits"]
    out.print(
        f"logits   {options.slots} × {WIDTH:,}, {size / 2**20:.1f} MiB, which count on both sides; "
        f"medians of {len(rounds)} rounds",
        highlight=False,
    )
    table = grid("The bound of uniform noise and its gradient", ("", "ms", "MiB", "bar", ""))
    for side in SIDES:
        time_taken, peak = (
            median(turn[side]["seconds"] for turn in rounds),
            median(total(turn[side]) for turn in rounds),
        )
        table.add_row(side, f"{time_taken * 1e3:,.1f}", f"{peak / 2**20:,.1f}", "", "")
    speed = compared(rounds, lambda side: side["seconds"])
    memory = compared(rounds, total)
    verdict = "[green]met[/]" if max(speed, memory) <= 0.5 else "[red]missed[/]"
    table.add_row("ours : plain", f"{speed:.2f}", f"{memory:.2f}", "≤ 0.5", verdict)
    out.print(table)


def total(side: Result) -> float:
    """The logits, and what came on top."""
    return side["logits"] + side["peak"]


def compared(rounds: list[dict[str, Result]], figure: Callable[[Result], float]) -> float:
    return median(figure(turn["ours"]) / figure(turn["plain"]) for turn in rounds)


if __name__ == "__main__":
    main()
