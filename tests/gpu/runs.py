"""Runs that are the same on every accelerator, so that a CPU can try what a GPU is to be trusted with."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from dllm_lightning.loading import load
from tests.conf.configurations import Terminal
from tests.processes.nursery import Nursery
from tests.processes.test_kills import COMMON
from tests.processes.test_ranks import column

STEPS = 16
SHORT = (
    *COMMON,
    f"trainer.max_steps={STEPS}",
    "trainer.val_check_interval=8",
    "data.train_size=400",
    "optimizer.lr=3e-3",
    "optimizer.decay=constant",
    "optimizer.warmup=4",
    "backbone.config.hidden_size=64",
    "backbone.config.intermediate_size=64",
)
"""Two validations, each with samples; heads as wide as the kernels of a GPU want them."""


def train(nursery: Nursery, name: str, *options: str) -> Path:
    """The folder of a run that came to its end."""
    assert nursery.run(*SHORT, *options, f"run={name}") == 0, nursery.said
    folder = nursery.folder / "runs" / name
    assert json.loads((folder / "result.json").read_text())["status"] == "done"
    return folder


def apart(one: Path, other: Path) -> float:
    """The largest relative difference between the losses of two runs, over all steps and validations."""
    pairs = [(column(one, name), column(other, name)) for name in ("train/loss", "val/nelbo")]
    assert all(left.keys() == right.keys() for left, right in pairs)
    assert len(pairs[0][0]) == STEPS and len(pairs[1][0]) == 2
    return max(abs(left[step] / right[step] - 1) for left, right in pairs for step in left)


def check_sharded(nursery: Nursery, terminal: Terminal, accelerator: str, devices: int) -> None:
    """Sharded, in bfloat16, with layers that are computed twice and clipped gradients, a run takes samples, goes on
    where it ended, is what it is unsharded, and comes out as a folder that transformers loads."""
    where = (f"trainer.accelerator={accelerator}", "trainer.precision=bf16-mixed", "trainer.gradient_clip_val=0.5")
    whole = train(nursery, f"whole-{devices}", "trainer=gpu", *where, f"data.batch_size={4 * devices}")
    sharded = (
        "trainer=fsdp",
        *where,
        f"trainer.devices={devices}",
        "data.batch_size=4",
        "backbone.gradient_checkpointing=true",
    )
    train(nursery, f"sharded-{devices}", *sharded, f"trainer.max_steps={STEPS // 2}")
    run = train(nursery, f"sharded-{devices}", *sharded)
    assert "Going on from" in nursery.said
    assert apart(run, whole) < 2e-2
    assert (run / "samples.csv").stat().st_size > 0

    exported = terminal.folder / "exported"
    ran = terminal(f"run={run}", f"out={exported}", entry="export")
    assert ran.code == 0, ran.err
    network, tokenizer = AutoModelForMaskedLM.from_pretrained(exported), AutoTokenizer.from_pretrained(exported)
    ours = load(run).backbone.network.state_dict()
    theirs = network.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "How much is 3 + 4?"}], add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]
    with torch.no_grad():
        assert torch.isfinite(network(ids).logits).all()
