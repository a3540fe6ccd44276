"""A job is called by the values that were swept, in whatever process and however often the sweep is started."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Callable, Iterator
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from dllm_lightning.sweep.names import LONGEST, SWEPT, as_folder, job_name
from tests.conf.configurations import composed

CONFIG = """
lr: 0.1
depth: 2
seed: 0
run: mine
swept: ${oc.env:DLLM_SWEPT,null}
files: null
logger: {name: "${job_or_run:${run}}", group: "${sweep_group:${run}}"}
hydra:
  run: {dir: "."}
  sweep: {dir: sweep, subdir: "${job_name:${hydra.overrides.task},${hydra.job.num}}"}
  callbacks: {report: {_target_: dllm_lightning.sweep.SweepReport, metric: val/nelbo, mode: min}}
"""

PLANNED = "defaults: [main, _self_]\nhydra: {sweeper: {params: {lr: '1,2', seed: '0,1'}}}\n"

Start = Callable[..., list[DictConfig]]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a program of Hydra's in an empty folder, with its own sweeper and launcher; gives what its jobs got."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "main.yaml").write_text(CONFIG)
    (tmp_path / "conf" / "planned.yaml").write_text(PLANNED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")

    def begin(*arguments: str, config: str = "main") -> list[DictConfig]:
        seen: list[DictConfig] = []

        def job(cfg: DictConfig) -> None:
            OmegaConf.resolve(cfg)
            seen.append(cfg)

        monkeypatch.setattr("sys.argv", ["main.py", *arguments, "hydra/job_logging=none", "hydra/hydra_logging=none"])
        hydra.main(version_base="1.3", config_path=str(tmp_path / "conf"), config_name=config)(job)()
        return seen

    yield begin
    GlobalHydra.instance().clear()


def jobs() -> list[str]:
    return sorted(folder.name for folder in Path("sweep").iterdir() if folder.is_dir())


def test_a_job_has_the_name_of_its_swept_values_alone(start: Start) -> None:
    start("-m", "lr=0.1,0.2", "depth=1", "seed=choice(0)")
    assert jobs() == ["lr=0.1,seed=0", "lr=0.2,seed=0"]


def test_a_job_without_swept_values_has_a_number(start: Start) -> None:
    start("-m", "lr=0.1")
    assert jobs() == ["0"]


def test_what_the_configuration_sweeps_is_in_the_name_unless_the_command_line_fixes_it(start: Start) -> None:
    start("-m", "seed=5", config="planned")
    assert jobs() == ["lr=1", "lr=2"]


def test_ranges_and_choices_are_swept_too(start: Start) -> None:
    start("-m", "lr=choice(1,2)", "depth=range(1,2)", "+more=3,4")
    assert jobs() == [f"lr={lr},depth=1,more={more}" for lr in (1, 2) for more in (3, 4)]


def test_a_sweep_that_gets_more_values_keeps_the_folders_of_before(start: Start) -> None:
    start("-m", "lr=0.1,0.2")
    before = jobs()
    start("-m", "lr=0.2,0.4")
    assert {*before} < {*jobs()} and len(jobs()) == 3


def test_one_job_of_a_sweep_that_is_started_alone_finds_its_folder(start: Start) -> None:
    start("-m", "lr=0.1,0.2", "seed=0,1")
    before = jobs()
    start("-m", "lr=0.2", "seed=1")
    assert jobs() == before


def test_the_jobs_inherit_what_was_swept_and_nothing_stays_behind(start: Start) -> None:
    seen = start("-m", "lr=0.1,0.2", "seed=range(1)")
    assert [each.swept for each in seen] == ["lr,seed"] * 2
    assert SWEPT not in os.environ


def test_a_logger_groups_the_jobs_of_a_sweep_and_names_each(start: Start) -> None:
    seen = start("-m", "lr=0.1,0.2")
    assert [(each.logger.group, each.logger.name) for each in seen] == [("mine", "lr=0.1"), ("mine", "lr=0.2")]


def test_a_logger_of_a_single_run_has_its_name_and_no_group(start: Start) -> None:
    (seen,) = start("lr=0.2")
    assert (seen.logger.group, seen.logger.name) == (None, "mine")


def test_wandb_resolves_where_hydra_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    logger = composed("logger=wandb", "run=mine").logger
    assert (logger.group, logger.name) == (None, "mine")


def test_values_that_no_file_system_likes_become_a_folder_of_their_own(start: Start) -> None:
    seen = start("-m", "files=[a/b.txt],[a_b.txt],'x y'")
    assert len(jobs()) == len(seen) == 3
    assert all(re.fullmatch(r"files=[\w.,=@-]+", name) for name in jobs())


VALUES = st.text(string.printable + "é\N{SPARKLES}", max_size=200)


@given(VALUES, VALUES)
def test_different_names_are_different_folders_of_a_length_that_file_systems_take(one: str, other: str) -> None:
    assert (as_folder(one) == as_folder(other)) == (one == other)
    assert len(as_folder(one).encode()) <= LONGEST and "/" not in as_folder(one)


@given(st.lists(st.sampled_from(["lr=1", "+depth=2", "seed=3", "noise=cosine"]), unique=True))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_name_follows_the_order_of_the_command_line(monkeypatch: pytest.MonkeyPatch, overrides: list[str]) -> None:
    monkeypatch.setenv(SWEPT, "seed,lr,depth")
    said = [each.lstrip("+") for each in overrides if not each.startswith("noise")]
    assert job_name(overrides, 7) == (",".join(said) or "7")
