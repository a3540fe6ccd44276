"""A model that is sharded over processes, as far as processors go; tests/gpu has the same for GPUs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conf.configurations import Terminal
from tests.gpu.runs import check_sharded
from tests.processes.nursery import Nursery


@pytest.mark.slow
def test_a_sharded_run_takes_samples_goes_on_and_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nursery = Nursery(tmp_path)
    check_sharded(nursery, Terminal(tmp_path, monkeypatch, capsys), "cpu", devices=2)
    nursery.close()
