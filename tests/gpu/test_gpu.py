"""What only a GPU can show: its arithmetic, its kernels, and several of them. `make test-gpu` runs these tests."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.callbacks.test_bad_steps import fit
from tests.conf.configurations import Terminal
from tests.gpu.runs import apart, check_sharded, train
from tests.processes.nursery import Nursery

GPU, COUNT = "gpu", torch.cuda.device_count()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here"),
]
several = pytest.mark.skipif(COUNT < 2, reason=f"needs two GPUs, and here are {COUNT}")
BF16 = ("trainer=gpu", f"trainer.accelerator={GPU}", "trainer.precision=bf16-mixed", "data.batch_size=8")
ROUNDING = 2e-2
"""Of bfloat16, in a loss."""


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    started = Nursery(tmp_path_factory.mktemp("gpu"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def usual(nursery: Nursery) -> Path:
    """One GPU, bfloat16, sdpa."""
    return train(nursery, "usual", *BF16)


def test_bfloat16_has_the_losses_of_float32(nursery: Nursery, usual: Path) -> None:
    exact = train(nursery, "exact", *BF16, "trainer.precision=32-true")
    assert apart(usual, exact) < ROUNDING
    with (usual / "csv" / "metrics.csv").open(newline="") as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert losses and all(map(math.isfinite, losses))


def test_a_gpu_has_the_losses_of_a_cpu(nursery: Nursery) -> None:
    here, there = (
        train(nursery, name, "trainer=gpu", f"trainer.accelerator={name}", "trainer.precision=32-true")
        for name in (GPU, "cpu")
    )
    assert apart(here, there) < 1e-3


@pytest.mark.parametrize(
    "attention",
    [
        pytest.param(
            "flash_attention_2",
            marks=pytest.mark.skipif(find_spec("flash_attn") is None, reason="needs the package flash-attn"),
        ),
        "flex_attention",
    ],
)
@pytest.mark.parametrize("packing", ["false", "true"])
def test_every_kernel_of_attention_has_the_losses_of_sdpa(
    nursery: Nursery, usual: Path, attention: str, packing: str
) -> None:
    rows = f"data.packing={packing}"
    expected = usual if packing == "false" else train(nursery, f"packed-{attention}", *BF16, rows)
    run = train(nursery, f"{attention}-{packing}", *BF16, rows, f"backbone.attention={attention}")
    assert apart(run, expected) < ROUNDING


def test_a_compiled_network_has_the_losses_of_one_that_is_not(nursery: Nursery, usual: Path) -> None:
    assert apart(train(nursery, "compiled", *BF16, "backbone.compile=true"), usual) < ROUNDING


@several
def test_all_gpus_together_have_the_losses_of_one(nursery: Nursery) -> None:
    exact = "trainer.precision=32-true"
    one = train(nursery, "one", *BF16, exact, f"data.batch_size={4 * COUNT}")
    where = ("trainer=ddp", f"trainer.accelerator={GPU}", f"trainer.devices={COUNT}")
    every = train(nursery, "every", *where, exact, "data.batch_size=4")
    assert apart(every, one) < 1e-3


@pytest.mark.parametrize("devices", [1, pytest.param(COUNT, marks=several, id="all")])
def test_a_sharded_run_takes_samples_goes_on_and_is_exported(
    nursery: Nursery,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    devices: int,
) -> None:
    check_sharded(nursery, Terminal(tmp_path, monkeypatch, capsys), GPU, devices)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_bad_step_moves_nothing_on_a_gpu_either(tmp_path: Path, precision: str) -> None:
    """The third and the fourth of six steps have no finite gradient."""
    seen = fit(tmp_path, float("nan"), limit=3, accelerator=GPU, precision=precision).seen
    moved = [not torch.equal(before[0], after[0]) for before, after in itertools.pairwise(seen)]
    assert moved == [True, False, False, True, True]
    assert all(torch.isfinite(part).all() for step in seen for part in step)


def test_duo_on_a_gpu_has_the_losses_of_a_cpu_through_its_curriculum_and_after_it(nursery: Nursery) -> None:
    duo = ("model=duo", "callbacks=annealed", "sampler.steps=4", "trainer=gpu", "trainer.precision=32-true")
    here, there = (train(nursery, f"duo-{name}", *duo, f"trainer.accelerator={name}") for name in (GPU, "cpu"))
    assert apart(here, there) < 1e-3
    assert apart(train(nursery, "duo-bf16", *duo[:3], *BF16), train(nursery, "duo-fp32", *BF16, *duo)) < ROUNDING
