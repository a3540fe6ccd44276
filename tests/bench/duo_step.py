"""What a training step of Duo costs beside one of MDM, and how its memory grows with the slots it scores.

The same network and packed rows, each side in a process of its own and on one thread, in turn. MDM is asked about every
answer slot here, as Duo always is. The second table takes all slots as one chunk, which nobody would train with, to
count how many tables of N·K numbers a step holds at its peak.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from corpus import source
from rich.console import Console
from training_speed import grid, machine, units

HERE = Path(__file__).resolve().parent
ALL_HIDDEN = ("model=mdm", "loss=masked_ce", "noise.min_ratio=1.0", "noise.max_ratio=1.0")
SIDES = {
    "MDM, every answer slot hidden": ALL_HIDDEN,
    "MDM, as it trains (half of them)": ("model=mdm", "loss=masked_ce"),
    "Duo, soft tokens, elbo": ("model=duo", "model.curriculum=1000", "loss=elbo"),
    "Duo, hard tokens, elbo": ("model=duo", "model.curriculum=0", "loss=elbo"),
    "Duo, soft tokens, symmetric_kl": ("model=duo", "model.curriculum=1000", "loss=symmetric_kl"),
    "Duo, soft tokens, ce": ("model=duo", "model.curriculum=1000", "loss=ce"),
}
STEPS = {"warmup": 2, "steps": 4}
BAR = "Duo, soft tokens, elbo", "MDM, every answer slot hidden"


def main() -> None:
    parser = argparse.ArgumentParser(description="The cost of a step of Duo beside one of MDM.")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--only", choices=["bar"], help="the two sides that the bar is about, and no memory")
    parser.add_argument("--rows", type=int, default=8, help="rows of 512 slots per step")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="32-true", choices=["32-true", "bf16-mixed"])
    options = parser.parse_args()
    clock, second = units(options.device)
    sides = {side: recipe for side, recipe in SIDES.items() if options.only is None or side in BAR}
    out = Console(width=110)
    out.print(f"machine  {machine(options.device)}\ndata     {source()}", highlight=False, soft_wrap=True)

    with tempfile.TemporaryDirectory(prefix="dllm-bench-") as folder:
        common = {"device": options.device, "precision": options.precision, "cache": folder, **STEPS}
        rounds = []
        for number in range(1, options.rounds + 1):
            rounds.append({})
            for side, recipe in sides.items():
                print(f"\rround {number} of {options.rounds}: {side:<34}", end="", file=sys.stderr, flush=True)
                rounds[-1][side] = measured(common | {"rows": options.rows, "recipe": recipe})
        peaks = {}
        for rows in (options.rows // 2, options.rows) if options.only is None else ():
            print(f"\rmemory with {rows} rows{'':<30}", end="", file=sys.stderr, flush=True)
            whole = ("backbone.chunk=1000000", *SIDES[BAR[0]])
            peaks[rows] = (
                measured(common | {"rows": rows, "recipe": whole}),
                measured(common | {"rows": rows, "recipe": SIDES[BAR[0]]}),
            )
    print("\r", end="", file=sys.stderr)

    columns = ("", "scored slots", f"{second}s a step", "beside MDM: median", "lowest", "highest", "peak memory")
    table = grid(f"One training step of {options.rows} rows of 512 slots, {options.precision}", columns)
    for side in sides:
        ratios = [turn[side][clock] / turn[BAR[1]][clock] for turn in rounds]
        middle = {key: median(turn[side][key] for turn in rounds) for key in rounds[0][side]}
        told = (f"{number:.2f}" for number in (median(ratios), min(ratios), max(ratios)))
        table.add_row(
            side, f"{middle['asked']:,.0f}", f"{middle[clock]:.2f}", *told, f"{middle['peak'] / 2**30:.2f} GiB"
        )
    ratio = median(turn[BAR[0]][clock] / turn[BAR[1]][clock] for turn in rounds)
    out.print(table, f"{BAR[0]} : {BAR[1]} = {ratio:.2f}, bar ≤ 1.5: {'met' if ratio <= 1.5 else 'missed'}")
    if peaks:
        report_memory(out, peaks)


def report_memory(out: Console, peaks: dict[int, tuple[dict[str, float], dict[str, float]]]) -> None:
    columns = ("rows", "scored slots N", "one chunk: peak", "128 slots a chunk: peak")
    table = grid("Memory of the step of Duo with soft tokens", columns)
    for rows, (whole, chunked) in peaks.items():
        told = (f"{side['peak'] / 2**30:.2f} GiB" for side in (whole, chunked))
        table.add_row(str(rows), f"{whole['asked']:,.0f}", *told)
    few, many = peaks.values()
    tables = [(b["peak"] - a["peak"]) / ((b["asked"] - a["asked"]) * 50368 * 4) for a, b in zip(few, many, strict=True)]
    out.print(
        table, f"tables of N·K numbers by which the peak grows: {tables[0]:.2f} as one chunk, {tables[1]:.2f} in chunks"
    )


def measured(options: dict[str, object]) -> dict[str, float]:
    """The figures of one side, from a fresh process on one thread."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(HERE / "sides.py"), "ours", json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | threads | quiet)
    if done.returncode:
        sys.exit(f"\nA side failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
