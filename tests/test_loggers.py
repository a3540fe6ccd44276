"""W&B never asks: it is online with a key and a network, offline without, and it says so once."""

from __future__ import annotations

import csv
import logging
import socket
from pathlib import Path
from typing import Any

import pytest
import wandb

from dllm_lightning import loggers


@pytest.fixture(autouse=True)
def nobody_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))


def made(folder: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> dict[str, Any]:
    """The options that reach Lightning's logger, which is not built."""
    options: dict[str, Any] = {}
    monkeypatch.setattr(loggers, "WandbLogger", lambda **given: options.update(given))
    loggers.wandb_logger(str(folder / "run"), project="dllm", name="here", **more)
    assert (folder / "run").is_dir()
    assert (options["save_dir"], options["project"], options["name"]) == (str(folder / "run"), "dllm", "here")
    return options


def network(monkeypatch: pytest.MonkeyPatch, there: bool) -> list[Any]:
    """A network, or none; what was tried is remembered."""
    tried: list[Any] = []

    def connect(address: Any, timeout: float) -> socket.socket:
        tried.append(address)
        if not there:
            raise OSError("no route")
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", connect)
    return tried


def logged_in(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    host = str(wandb.setup().settings.base_url).removeprefix("https://")
    (folder / ".netrc").write_text(f"machine {host}\n  login user\n  password {'0' * 40}\n")
    (folder / ".netrc").chmod(0o600)


def test_without_a_key_it_goes_offline_says_so_and_tries_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = network(monkeypatch, there=True)
    with caplog.at_level(logging.WARNING):
        assert made(tmp_path, monkeypatch)["mode"] == "offline"
    (said,) = [record.getMessage() for record in caplog.records if record.name == loggers.__name__]
    assert said.startswith("W&B runs offline, because there is no API key (wandb login, or WANDB_API_KEY).")
    assert f"wandb sync {tmp_path}/run/wandb/offline-run-*" in said
    assert tried == []


def test_with_a_key_but_no_network_it_goes_offline_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logged_in(monkeypatch, tmp_path)
    tried = network(monkeypatch, there=False)
    with caplog.at_level(logging.WARNING):
        assert made(tmp_path, monkeypatch)["mode"] == "offline"
    assert len(tried) == 1
    assert any("cannot be reached" in record.getMessage() for record in caplog.records)


def test_with_a_key_and_a_network_it_is_online_and_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logged_in(monkeypatch, tmp_path)
    network(monkeypatch, there=True)
    with caplog.at_level(logging.WARNING):
        assert "mode" not in made(tmp_path, monkeypatch)
    assert not [record for record in caplog.records if record.name == loggers.__name__]


@pytest.mark.parametrize("mode", ["online", "offline", "disabled"])
def test_wandb_mode_has_the_last_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    logged_in(monkeypatch, tmp_path)
    monkeypatch.setenv("WANDB_MODE", mode)
    tried = network(monkeypatch, there=False)
    assert "mode" not in made(tmp_path, monkeypatch)
    assert tried == []


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_without_wandb_mode_the_option_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    logged_in(monkeypatch, tmp_path)
    tried = network(monkeypatch, there=False)
    assert made(tmp_path, monkeypatch, mode=mode)["mode"] == mode
    assert tried == []


@pytest.mark.parametrize("by", ["option", "environment"])
def test_who_insists_on_online_without_a_key_is_told_and_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    if by == "environment":
        monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(loggers.NoKey, match=r"=online needs an API key, and there is none: run `wandb login`"):
        loggers.wandb_logger(str(tmp_path / "run"), **({"mode": "online"} if by == "option" else {}))
    assert not (tmp_path / "run").exists()


def test_the_curves_of_a_run_that_goes_on_are_kept(tmp_path: Path) -> None:
    """A new column may come, and the old rows stay."""
    for step, metrics in ((0, {"loss": 3.0}), (1, {"loss": 2.0, "nelbo": 5.0}), (2, {"loss": 1.0})):
        logger = loggers.Curves(tmp_path, name="csv", version="")
        logger.log_metrics(metrics, step)
        logger.finalize("success")
    with (tmp_path / "csv" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["loss"], row["nelbo"]) for row in rows] == [
        ("0", "3.0", ""),
        ("1", "2.0", "5.0"),
        ("2", "1.0", ""),
    ]
    assert [file.name for file in (tmp_path / "csv").iterdir()] == ["metrics.csv"]


def test_a_run_that_goes_on_is_the_same_run_to_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its first step: a run that never began leaves no name behind."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    first = loggers.wandb_logger(str(tmp_path / "run"))
    assert not (tmp_path / "run" / "wandb").exists()
    loggers.go_on([first], tmp_path / "run", 0)
    again, other = (loggers.wandb_logger(str(tmp_path / name)) for name in ("run", "other"))
    assert again.version == first.version != other.version


def curves(folder: Path) -> list[tuple[int, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]


def logged(folder: Path, steps: range) -> loggers.Curves:
    logger = loggers.Curves(str(folder), name="", version="")
    loggers.go_on([logger], folder, steps.start)
    for step in steps:
        logger.log_metrics({"loss": step / 2}, step)
    logger.save()
    return logger


@pytest.mark.parametrize("cut", [0, 1, 3])
def test_curves_of_a_killed_run_go_on_without_a_gap_a_double_or_half_a_line(tmp_path: Path, cut: int) -> None:
    logged(tmp_path, range(6))
    file = tmp_path / "metrics.csv"
    file.write_bytes(file.read_bytes()[: -cut or None])
    logged(tmp_path, range(4, 9))
    assert curves(tmp_path) == [(step, step / 2) for step in range(9)]


def test_a_curve_of_which_not_even_the_header_was_written_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("lo")
    logged(tmp_path, range(2))
    assert curves(tmp_path) == [(0, 0.0), (1, 0.5)]


def test_a_new_metric_in_the_middle_of_a_run_keeps_what_was_logged_before(tmp_path: Path) -> None:
    logger = logged(tmp_path, range(2))
    logger.log_metrics({"loss": 9.0, "other": 1.0}, 2)
    logger.save()
    assert curves(tmp_path) == [(0, 0.0), (1, 0.5), (2, 9.0)]
