"""What every test stands on: checked shapes, one thread, no network, a cache of its own, and real data where it is.

The folders of pure mathematics are imported through jaxtyping and beartype, so every shape in a signature there is
checked on every call of every test. This happens here and nowhere else: outside the tests the signatures are only read.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

SCRATCH = Path(tempfile.mkdtemp(prefix="dllm-tests-"))

# Read by the libraries when they are imported, and inherited by the processes that tests start.
os.environ.update(
    HF_HOME=str(SCRATCH / "huggingface"),
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    WANDB_DIR=str(SCRATCH),
    WANDB_MODE="offline",
    WANDB_SILENT="true",
)
for inherited in ("HF_DATASETS_CACHE", "HF_HUB_CACHE", "TRANSFORMERS_CACHE", "WANDB_API_KEY"):
    os.environ.pop(inherited, None)

import pytest
import torch
from jaxtyping import install_import_hook

PURE = ("types", "noise", "process", "loss", "sampler", "likelihood")

install_import_hook([f"dllm_lightning.{room}" for room in PURE], "beartype.beartype")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Hydra's logging and the environment that W&B has read outlive a call; no test finds what another left."""
    root = logging.getLogger()
    handlers, level = [*root.handlers], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data that DLLM_DATA names; without it the test is skipped."""
    folder = os.environ.get("DLLM_DATA", "")
    if not folder:
        pytest.skip("reads real data, and DLLM_DATA names no folder")
    if not Path(folder, "chat").is_dir():
        pytest.fail(f"DLLM_DATA is {folder!r}, which has no folder chat. Name the one that holds it.", pytrace=False)
    return Path(folder).resolve()


def pytest_unconfigure() -> None:
    shutil.rmtree(SCRATCH, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start processes come first: what takes long must not be what all the others wait for in the end."""
    items.sort(key=lambda item: "processes" not in item.path.parts)
