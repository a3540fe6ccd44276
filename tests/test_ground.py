"""The package stands in three places: in its checkout, in any other folder, and as a wheel in a new environment.

Everywhere the entry points find the configuration, and asking for help costs no heavy import.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENTRIES = ("train", "generate")
HEAVY = {"torch", "lightning", "transformers", "datasets", "wandb"}


class Place(NamedTuple):
    """An interpreter, the folder it is started in, and where it finds the package: None for its own site-packages."""

    python: Path
    folder: Path
    path: Path | None

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python ARGUMENTS` there, which must succeed."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        if self.path is not None:
            environment["PYTHONPATH"] = str(self.path)
        command = [str(self.python), *arguments]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=600)
        said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
        assert done.returncode == 0, "\n".join(said)
        return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    Place(Path(sys.executable), ROOT, None).run("-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The wheel alone in a new environment. Its dependencies are lent by the running one, not downloaded again."""
    home = tmp_path_factory.mktemp("installed")
    here = Place(Path(sys.executable), home, None)
    here.run("-m", "venv", "--without-pip", "env")
    python = home / "env" / "bin" / "python"
    here.run("-m", "pip", "-q", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    (site_packages,) = (home / "env").glob("lib/python*/site-packages")
    (site_packages / "lent.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return Place(python, home, None)


@pytest.fixture(scope="module", params=["the checkout", "another folder", "a wheel"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    match request.param:
        case "the checkout":
            return Place(Path(sys.executable), ROOT, None)
        case "another folder":
            return Place(Path(sys.executable), tmp_path_factory.mktemp("elsewhere"), ROOT)
        case _:
            return request.getfixturevalue("installed")


def test_the_wheel_carries_the_package_its_configuration_and_its_licence_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    conf = {f"dllm_lightning/{file.relative_to(ROOT)}" for file in (ROOT / "conf").rglob("*.yaml")}
    assert conf and conf <= names
    assert "dllm_lightning/py.typed" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"dllm_lightning"}


def test_an_installed_wheel_does_not_lean_on_the_checkout(installed: Place) -> None:
    found = installed.run("-c", "import dllm_lightning; print(dllm_lightning.__file__)").stdout
    assert Path(found.strip()).is_relative_to(installed.folder)


@pytest.mark.parametrize("entry", ENTRIES)
def test_help_is_answered_anywhere_and_without_a_heavy_import(place: Place, entry: str) -> None:
    """-X importtime writes a line `import time: own | cumulative | module` for every module that is loaded."""
    answer = place.run("-X", "importtime", "-m", f"dllm_lightning.{entry}", "--help")
    assert answer.stdout.strip()
    loaded = {line.rpartition("|")[2].strip() for line in answer.stderr.splitlines() if line.startswith("import time:")}
    assert "argparse" in loaded  # the list of modules was read
    assert not loaded & HEAVY


@pytest.mark.parametrize("choices", [(), ("experiment=quickstart", "noise=cosine")], ids=["the defaults", "choices"])
def test_a_run_is_composed_anywhere_and_a_look_at_it_leaves_nothing_behind(
    place: Place, choices: tuple[str, ...]
) -> None:
    before = {*place.folder.iterdir()}
    composed = place.run("-m", "dllm_lightning.train", *choices, "--cfg", "job").stdout
    assert f"dllm_lightning.noise.{'Cosine' if choices else ''}" in composed
    assert "dllm_lightning.process." in composed
    if place.folder != ROOT:  # where other tests may be writing
        assert {*place.folder.iterdir()} == before


def test_make_alone_lists_its_commands() -> None:
    listed = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    commands = {line.split()[1] for line in listed.splitlines() if line.startswith("  make ")}
    assert {"setup", "demo", "test", "lint", "format", "bench", "wheel", "clean"} <= commands
