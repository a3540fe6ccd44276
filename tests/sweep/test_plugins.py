"""Searches with Optuna and jobs on SLURM: composed by Hydra, and rendered where their plugins are installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import MissingConfigException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from dllm_lightning.sweep.slurm import slurm_gpus, slurm_tasks
from tests.conf.configurations import CONF

with_optuna = pytest.mark.skipif(find_spec("optuna") is None, reason="needs the extra search")
with_submitit = pytest.mark.skipif(find_spec("submitit") is None, reason="needs the extra slurm")


def with_hydra(*overrides: str) -> DictConfig:
    """The configuration of a command line, Hydra's own part with it."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [*overrides, "run=mine"], return_hydra_config=True)


@pytest.mark.parametrize("devices", ["auto", -1, 0, None, [0, 1], True, 1.5])
def test_slurm_is_not_asked_for_a_number_of_devices_that_is_none(devices: object) -> None:
    with pytest.raises(ValueError, match=r"give trainer\.devices=8, say, not "):
        slurm_tasks(devices)


def test_slurm_is_asked_for_gpus_where_the_trainer_wants_some() -> None:
    assert (slurm_tasks(4), slurm_gpus(4, "gpu"), slurm_gpus(4, "auto"), slurm_gpus(4, "cpu")) == (4, 4, 4, None)


@with_submitit
def test_a_slurm_job_has_the_nodes_and_devices_of_its_trainer() -> None:
    launcher = with_hydra(
        "hydra/launcher=slurm", "trainer=ddp", "trainer.devices=8", "trainer.num_nodes=2"
    ).hydra.launcher
    assert (launcher.nodes, launcher.tasks_per_node, launcher.gpus_per_node) == (2, 8, 8)
    on_cpu = with_hydra("hydra/launcher=slurm", "trainer=ddp_cpu", "hydra.launcher.partition=short").hydra.launcher
    assert (on_cpu.tasks_per_node, on_cpu.gpus_per_node, on_cpu.partition) == (2, None, "short")
    with pytest.raises(InterpolationResolutionError, match="how many devices"):
        OmegaConf.resolve(with_hydra("hydra/launcher=slurm", "trainer=ddp").hydra.launcher)


@with_submitit
def test_the_script_for_slurm_says_what_the_configuration_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to `sbatch`, which is a program of two lines here that keeps the script."""
    script, programs = tmp_path / "script.sh", tmp_path / "bin"
    programs.mkdir()
    for name, line in {"sbatch": f'cp "$1" {script}; echo Submitted batch job 7', "srun": "", "sacct": ""}.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    cfg = with_hydra(
        "hydra/launcher=slurm",
        "trainer=ddp",
        "trainer.devices=4",
        "trainer.num_nodes=2",
        f"hydra.sweep.dir={tmp_path}/sweep",
    )
    HydraConfig.instance().set_config(cfg)
    monkeypatch.setattr("submitit.Job.results", lambda self: [None])
    launcher: Any = instantiate(cfg.hydra.launcher)
    assert isinstance(launcher, Launcher)
    context = HydraContext(config_loader=None, callbacks=None)  # type: ignore[arg-type]
    launcher.setup(hydra_context=context, task_function=print, config=cfg)
    launcher.launch([["seed=0"], ["seed=1"]], initial_job_idx=0)
    asked = {line.removeprefix("#SBATCH --") for line in script.read_text().splitlines() if line.startswith("#SBATCH")}
    wanted = {"nodes=2", "ntasks-per-node=4", "gpus-per-node=4", "cpus-per-task=8", "time=1440"}
    assert wanted | {"signal=USR1@120", "requeue", "array=0-1%2", "open-mode=append"} <= asked
    assert not any(line.startswith("partition") for line in asked)


@with_optuna
@pytest.mark.parametrize(("mode", "direction"), [("min", "minimize"), ("max", "maximize")])
def test_a_search_goes_where_its_report_looks(mode: str, direction: str) -> None:
    cfg = with_hydra("experiment=search", f"hydra.callbacks.report.mode={mode}")
    assert cfg.hydra.sweeper.direction == direction


@with_optuna
def test_every_value_that_a_search_may_try_is_one_that_trains() -> None:
    """Each end of each interval composes, and the bounds never cross."""
    from hydra_plugins.hydra_optuna_sweeper._impl import create_params_from_overrides

    params = with_hydra("experiment=search").hydra.sweeper.params
    tried, fixed = create_params_from_overrides([f"{key}={value}" for key, value in params.items()])
    assert not fixed and {*tried} >= {"optimizer.lr", "noise.min_ratio", "noise.max_ratio", "loss.max_weight"}
    assert 0 <= tried["noise.min_ratio"].high <= tried["noise.max_ratio"].low <= tried["noise.max_ratio"].high <= 1
    for end in ("low", "high"):
        ends = [f"{key}={getattr(each, end)}" for key, each in tried.items()]
        assert with_hydra("experiment=search", *ends).loss._target_.endswith("WeightedCE")


@pytest.mark.parametrize(
    ("override", "plugin", "module"),
    [
        ("experiment=search", "hydra/sweeper/optuna", "optuna"),
        ("hydra/launcher=slurm", "hydra/launcher/submitit_slurm", "submitit"),
    ],
)
def test_without_its_plugin_an_option_is_missing_by_name(override: str, plugin: str, module: str) -> None:
    if find_spec(module) is not None:
        pytest.skip(f"{module} is installed")
    with pytest.raises(MissingConfigException) as missing:
        with_hydra(override)
    assert missing.value.missing_cfg_file == plugin
