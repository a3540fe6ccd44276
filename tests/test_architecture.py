"""The map of the house: who may import whom, and from outside what.

The import statements are read with `ast`, nothing is run. An arrow inside the package counts wherever it stands, in a
function or under TYPE_CHECKING too: it says that one room knows of another. What is heavy counts only where it is
paid for, at import time.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dllm_lightning"

MATHEMATICS = {"torch", "jaxtyping"}
TRAINING = {"lightning", "torchmetrics"}
TEXT = {"datasets", "transformers", "tokenizers", "huggingface_hub", "jinja2", "numpy", "pyarrow"}
CONFIGURATION = {"hydra", "omegaconf"}
ALL = MATHEMATICS | TRAINING | TEXT | CONFIGURATION | {"rich", "wandb"}

# A room may import itself, the rooms named here, and the libraries named here. Arrows add up: noise stands on types, so
# process, which stands on noise, may import types.
ROOMS: dict[str, tuple[set[str], set[str]]] = {
    "types": (set(), MATHEMATICS),
    "noise": ({"types"}, MATHEMATICS),
    "process": ({"noise"}, MATHEMATICS),
    "loss": ({"process"}, MATHEMATICS),
    "sampler": ({"process"}, MATHEMATICS),
    "backbone": ({"types"}, MATHEMATICS | {"transformers", "safetensors"}),
    "data": ({"types"}, MATHEMATICS | TEXT | {"lightning", "rich"}),
    "model": ({"process", "loss", "backbone", "checkpoints", "saving"}, MATHEMATICS | TRAINING),
    "result": (set(), set()),
    "saving": (set(), {"torch", "lightning"}),
    "loggers": (set(), {"lightning", "wandb"}),
    "callbacks": ({"model", "sampler", "loggers", "result", "saving"}, MATHEMATICS | TRAINING | {"rich"}),
    "trainer": ({"callbacks", "saving"}, {"lightning"}),
    "compatibility": ({"model", "sampler", "callbacks", "data"}, MATHEMATICS),
    "checkpoints": (set(), {"torch"}),
    "resume": ({"checkpoints", "saving"}, set()),
    "mistakes": (set(), CONFIGURATION),
    "schema": ({"mistakes"}, CONFIGURATION),
    "sweep": (set(), CONFIGURATION | {"rich", "matplotlib"}),
    "jobs": ({"result"}, CONFIGURATION),
    "crew": ({"jobs"}, {"torch", "lightning"} | CONFIGURATION),
    "flags": (set(), CONFIGURATION),
    "launch": ({"flags", "mistakes", "jobs", "crew", "sweep"}, CONFIGURATION),
    "options": (set(), CONFIGURATION),
    "chosen": ({"mistakes"}, CONFIGURATION),
    "device": (set(), {"torch"}),
    "prompts": ({"data"}, set()),
    "speaker": ({"model", "sampler", "data"}, {"torch"}),
    "terminal": ({"speaker"}, {"torch", "rich"}),
    "assemble": ({"compatibility", "checkpoints", "loggers", "schema"}, ALL),
    "loading": ({"model", "sampler", "data", "checkpoints"}, {"torch"} | CONFIGURATION),
    "publish": ({"loading"}, {"torch", "transformers", "tokenizers", "huggingface_hub"}),
    "export": ({"publish", "launch", "options"}, {"omegaconf"}),
    "train": ({"assemble", "launch", "resume"}, ALL),
    "generate": ({"loading", "launch", "options", "chosen", "device", "prompts", "terminal"}, ALL),
    "likelihood": ({"process"}, MATHEMATICS),
    "evaluation": (
        {"likelihood", "loading", "speaker", "schema", "terminal"},
        MATHEMATICS | TEXT | CONFIGURATION | {"rich"},
    ),
    "harness": ({"evaluation"}, {"torch", "lm_eval"}),
    "measures": ({"evaluation", "harness", "chosen", "device"}, CONFIGURATION),
    "evaluate": ({"measures", "launch", "options", "result"}, ALL),
}
HEAVY = {"transformers", "datasets", "wandb", "matplotlib"}  # imported where they are used; see the last law
DISTRIBUTIONS = {
    "hydra": "hydra-core",
    "huggingface_hub": "huggingface-hub",
}  # where the name to install is not the name to import
EXTRAS = {"harness": "eval"}  # a room for those who installed more


class Import(NamedTuple):
    """One imported module, and where the statement stands. `names` are what it binds in the file."""

    module: str
    names: tuple[str, ...]
    line: int
    at_import_time: bool


class Imports(ast.NodeVisitor):
    """Collects every import of one file, and whether it runs when the file is imported."""

    def __init__(self, package: str) -> None:
        self.package, self.found, self.deferred = package, [], 0

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.add(alias.name, (alias.asname or alias.name.partition(".")[0],), node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        above = self.package.split(".")[: len(self.package.split(".")) - node.level + 1] if node.level else []
        origin = ".".join([*above, *([node.module] if node.module else [])])
        if origin == PACKAGE.name:  # from dllm_lightning import noise
            for alias in node.names:
                self.add(f"{origin}.{alias.name}", (alias.asname or alias.name,), node.lineno)
        else:
            self.add(origin, tuple(alias.asname or alias.name for alias in node.names), node.lineno)

    def visit_If(self, node: ast.If) -> None:
        only_for_types = "TYPE_CHECKING" in ast.unparse(node.test)
        self.deferred += only_for_types
        for child in node.body:
            self.visit(child)
        self.deferred -= only_for_types
        for child in node.orelse:
            self.visit(child)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.deferred += 1
        self.generic_visit(node)
        self.deferred -= 1

    visit_AsyncFunctionDef = visit_FunctionDef

    def add(self, module: str, names: tuple[str, ...], line: int) -> None:
        self.found.append(Import(module, names, line, at_import_time=not self.deferred))


def imports(source: str, package: str = PACKAGE.name) -> list[Import]:
    """Every import in `source`, a file that lies in `package`."""
    visitor = Imports(package)
    visitor.visit(ast.parse(source))
    return visitor.found


def imports_of(file: Path) -> list[Import]:
    return imports(file.read_text(), ".".join(file.relative_to(ROOT).parent.parts))


def room_of(file: Path) -> str:
    """The folder of a file, or the file itself where it lies at the top of the package."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def within_reach(room: str) -> set[str]:
    """The rooms that `room` stands on, with those that they stand on."""
    below = ROOMS[room][0]
    return {room, *below}.union(*(within_reach(other) for other in below))


def arrows(file: Path) -> Iterator[str]:
    """The import statements of `file` that leave the map, as sentences."""
    room = room_of(file)
    rooms, libraries = within_reach(room), ROOMS[room][1]
    for found in imports_of(file):
        top, *rest = found.module.split(".")
        where = f"{file.relative_to(ROOT)}:{found.line}"
        if top == PACKAGE.name:
            target = rest[0] if rest else ""
            if target in ROOMS and target not in rooms:
                yield f"{where}: {room} may not know of {target}"
        elif top not in sys.stdlib_module_names and top not in libraries:
            yield f"{where}: {room} may not import {top}"


FILES = sorted(file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py")
every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))


def test_every_room_has_its_place_on_the_map() -> None:
    """A new folder is a decision about who may know of it: it is taken in ROOMS."""
    assert {room_of(file) for file in FILES} <= ROOMS.keys()


def test_the_map_has_no_circles() -> None:
    for room, (below, _) in ROOMS.items():
        assert all(room not in within_reach(other) for other in below)


@every_file
def test_no_import_leaves_the_map(file: Path) -> None:
    assert not list(arrows(file))


def test_importing_the_package_itself_imports_nothing() -> None:
    assert not imports_of(PACKAGE / "__init__.py")


@every_file
def test_every_library_that_is_imported_is_declared(file: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"][EXTRAS[room]] if (room := room_of(file)) in EXTRAS else []
    declared = {re.split(r"[^\w-]", requirement)[0] for requirement in [*project["dependencies"], *extra]}
    imported = {found.module.partition(".")[0] for found in imports_of(file)}
    libraries = imported - {PACKAGE.name, *sys.stdlib_module_names}
    assert {DISTRIBUTIONS.get(name, name) for name in libraries} <= declared


@every_file
def test_what_is_heavy_is_imported_where_it_is_used(file: Path) -> None:
    """At the top of a file only for a class that inherits from it."""
    classes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ClassDef)]
    bases = [part for node in classes for base in node.bases for part in ast.walk(base)]
    inherited = {part.id for part in bases if isinstance(part, ast.Name)}
    at_the_top = [
        f"{file.relative_to(ROOT)}:{found.line}: {found.module}"
        for found in imports_of(file)
        if found.at_import_time and found.module.partition(".")[0] in HEAVY and not inherited & {*found.names}
    ]
    assert not at_the_top


def test_the_walk_sees_every_way_of_writing_an_import() -> None:
    source = """
import torch.nn as nn
from ..types import Canvas
from .. import noise as schedules
from . import masked
if TYPE_CHECKING:
    from datasets import Dataset
else:
    import rich
def load():
    import wandb
"""
    found = [(each.module, each.names, each.at_import_time) for each in imports(source, f"{PACKAGE.name}.process")]
    assert found == [
        ("torch.nn", ("nn",), True),
        ("dllm_lightning.types", ("Canvas",), True),
        ("dllm_lightning.noise", ("schedules",), True),
        ("dllm_lightning.process", ("masked",), True),
        ("datasets", ("Dataset",), False),
        ("rich", ("rich",), True),
        ("wandb", ("wandb",), False),
    ]
