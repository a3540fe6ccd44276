"""`make bench`: how fast we train, and in how much memory, beside the recipe that this project grew from.

The sides take turns, each in a process of its own, on one thread; their ratios are taken round by round, so that a
machine which is busy for a while slows both. The warm-up of each process is not counted. `sides.py` says what they do.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from corpus import source
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
STEPS = {"original": (1, 2), "ours": (2, 6), "bare": (2, 6)}
"""Steps of warm-up, and measured steps, of each side."""

Result = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description="Training speed and memory, beside the original recipe.")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--rows", type=int, default=32, help="rows of 512 slots per step")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="32-true", choices=["32-true", "bf16-mixed"])
    parser.add_argument("more", nargs="*", help="settings of the model, such as backbone.chunk=256")
    options = parser.parse_args()

    rounds: list[dict[str, Result]] = []
    with tempfile.TemporaryDirectory(prefix="dllm-bench-") as folder:
        common = {name: getattr(options, name) for name in ("rows", "device", "precision", "more")}
        for number in range(1, options.rounds + 1):
            rounds.append({})
            for side, (warmup, steps) in STEPS.items():
                print(f"\rround {number} of {options.rounds}: {side:<10}", end="", file=sys.stderr, flush=True)
                rounds[-1][side] = measured(side, common | {"warmup": warmup, "steps": steps, "cache": folder})
    print("\r", end="", file=sys.stderr)
    report(rounds, options)


def measured(side: str, options: dict[str, Any]) -> Result:
    """The figures of one side, from a fresh process on one thread."""
    command = [sys.executable, str(HERE / "sides.py"), side, json.dumps(options)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | threads | quiet)
    if done.returncode:
        sys.exit(f"\nThe side {side!r} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def report(rounds: list[dict[str, Result]], options: argparse.Namespace) -> None:
    out = Console(width=100)
    model = " ".join(["ModernBERT, 4 layers × 128, K = 50,368", *(["with", *options.more] if options.more else [])])
    facts = {
        "machine": machine(options.device),
        "data": source(),
        "model": model,
        "step": f"{options.rows} rows of 512 slots, {options.precision}; medians of {len(rounds)} rounds",
        "sides": "original: transformers.Trainer, rows padded to 512, logits and loss at every slot\n"
        "ours: what dllm_lightning.train runs; bare: the same packed rows in a loop without Lightning",
        "memory": "of the process, at its peak" if options.device == "cpu" else "allocated on the device, at its peak",
    }
    for name, fact in facts.items():
        out.print(f"{name:<9}" + fact.replace("\n", "\n" + " " * 9), soft_wrap=True, highlight=False)
    out.print(figures(rounds, *units(options.device)), bars(rounds, *units(options.device)))


def units(device: str) -> tuple[str, str]:
    """Which clock counts, and the name of its unit."""
    return ("cpu", "CPU-second") if device == "cpu" else ("wall", "second")


def figures(rounds: list[dict[str, Result]], clock: str, second: str) -> Table:
    columns = ("", "real tokens", "scored slots", f"{second}s", f"tokens per {second}", "peak memory")
    table = grid("One training step", columns)
    for side in STEPS:
        middle = {key: median(turn[side][key] for turn in rounds) for key in rounds[0][side]}
        speed = median(turn[side]["tokens"] / turn[side][clock] for turn in rounds)
        cells = (f"{middle['tokens']:,.0f}", f"{middle['asked']:,.0f}", f"{middle[clock]:.2f}", f"{speed:,.0f}")
        table.add_row(side, *cells, f"{middle['peak'] / 2**30:.2f} GiB")
    return table


def bars(rounds: list[dict[str, Result]], clock: str, second: str) -> Table:
    """The ratios of each round, and what they should be."""
    table = grid("Round by round", ("", "median", "lowest", "highest", "bar", ""))

    def per_token(side: Result) -> float:
        return side[clock] / side["tokens"]

    def row(name: str, ratios: list[float], bar: str, met: Callable[[float], bool]) -> None:
        cells = (f"{number:.2f}" for number in (median(ratios), min(ratios), max(ratios)))
        table.add_row(name, *cells, bar, "[green]met[/]" if met(median(ratios)) else "[red]missed[/]")

    speed = [per_token(turn["original"]) / per_token(turn["ours"]) for turn in rounds]
    memory = [turn["ours"]["peak"] / turn["original"]["peak"] for turn in rounds]
    overhead = [per_token(turn["ours"]) / per_token(turn["bare"]) for turn in rounds]
    row(f"tokens per {second}, ours : original", speed, "≥ 5", lambda ratio: ratio >= 5)
    row("peak memory, ours : original", memory, "≤ 0.5", lambda ratio: ratio <= 0.5)
    row("time per token, ours : bare", overhead, "≤ 1.3", lambda ratio: ratio <= 1.3)
    return table


def grid(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    return table


def machine(device: str) -> str:
    """The processor that did the work, and the versions."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "lightning", "transformers"))
    if device == "cuda":
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return f"{subprocess.run(command, capture_output=True, text=True).stdout.splitlines()[0]}; {versions}"
    names = [line.split(":")[1].strip() for line in cpuinfo() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, one thread; {versions}"


def cpuinfo() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.is_file() else []


if __name__ == "__main__":
    main()
