"""Every YAML composes, names what exists, and shows every option of its part: none is hidden, none is dead."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

import dllm_lightning
from dllm_lightning.assemble import settled
from dllm_lightning.backbone import Backbone
from dllm_lightning.backbone.cache import Cache
from dllm_lightning.data.template import ChatTemplate
from dllm_lightning.loss import Loss
from dllm_lightning.model import DiffusionModule
from dllm_lightning.noise import NoiseSchedule
from dllm_lightning.process import Process, Relaxed
from dllm_lightning.process.hiding import Hiding
from dllm_lightning.sampler import Sampler
from dllm_lightning.schema import check_values
from tests.conf.configurations import CONF, ENTRIES, PARTS, chosen, composed, entry_of, group, names, targets

PACKAGE = Path(dllm_lightning.__file__).parent
SOURCE = {file: file.read_text() for file in PACKAGE.rglob("*.py")}
HANDED_OVER = {"model": {"seed", "recipe"}}  # by assemble, from elsewhere in the configuration
FAMILIES = (NoiseSchedule, Process, Hiding, Loss, Sampler, Backbone, Cache, ChatTemplate, DiffusionModule)

every_part = pytest.mark.parametrize("file", PARTS, ids=lambda file: f"{group(file)}={file.stem}")


def ours(file: Path) -> Iterator[tuple[str, DictConfig]]:
    """The parts of this package that a YAML configures; an experiment only chooses among those of others."""
    found = () if group(file) == "experiment" else targets(chosen(file))
    return ((key, cfg) for key, cfg in found if str(cfg._target_).startswith("dllm_lightning."))


def leaves(base: Any) -> Iterator[Any]:
    for child in base.__subclasses__():
        yield from leaves(child)
        if not inspect.isabstract(child) and child.__module__.startswith("dllm_lightning."):
            yield child


@every_part
def test_every_option_composes_names_what_exists_and_gives_values_of_the_right_kind(file: Path) -> None:
    entry = entry_of(file)
    cfg = composed(f"{group(file)}={file.stem}", entry=entry)
    for key, part in targets(cfg):
        assert callable(get_object(part._target_)), key
    check_values(settled(cfg) if entry == "train" else cfg[group(file)])


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda file: file.stem)
def test_every_entry_point_has_a_configuration_that_composes(entry: Path) -> None:
    assert (PACKAGE / entry.name).with_suffix(".py") in SOURCE
    assert composed(entry=entry.stem)


@every_part
def test_no_option_is_hidden(file: Path) -> None:
    """What a part takes and has a default for stands in its YAML, where it can be seen and changed."""
    for key, part in ours(file):
        optional = {
            n for n, value in declared(get_object(part._target_)).items() if value is not inspect.Parameter.empty
        }
        hidden = optional - {*map(str, part)} - HANDED_OVER.get(group(file), set())
        assert not hidden, f"{file.name} says nothing of {hidden} at {key or 'its top'}"


@every_part
def test_no_option_is_dead(file: Path) -> None:
    """Each parameter is read: as an attribute in the package, or in the constructor that takes it."""
    for _, part in ours(file):
        target = get_object(part._target_)
        for name in declared(target).keys() & {*map(str, part)}:
            attribute = any(re.search(rf"\.{name}\b", text) for text in SOURCE.values())
            by_name = "getattr(self, " in SOURCE[Path(inspect.getfile(target))]
            assert attribute or by_name or name in read_in(target), f"nobody reads {name} of {part._target_}"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda file: file.stem)
def test_every_option_of_an_entry_point_is_read(entry: Path) -> None:
    """By the entry point, by what launches or composes it, or by another value of the configuration."""
    written = "".join(
        SOURCE[PACKAGE / name] for name in (f"{entry.stem}.py", "launch.py", "assemble.py", "measures.py")
    )
    referred = "".join(file.read_text() for file in (*ENTRIES, *PARTS))
    for name in (str(key) for key in OmegaConf.load(entry) if str(key) not in ("defaults", "hydra")):
        assert re.search(rf"cfg\.{name}\b|\[\"{name}\"\]", written) or f"${{{name}}}" in referred, name


@every_part
def test_a_yaml_lies_where_its_part_does_and_says_first_how_to_choose_it(file: Path) -> None:
    first = file.read_text().splitlines()[0]
    if group(file) == "experiment":
        assert first == "# @package _global_"
        return
    assert re.match(rf"# {group(file)}={file.stem}(:|$)", first)
    room = group(file).partition("/")[0]
    if (PACKAGE / room).is_dir():
        assert all(str(part._target_).startswith(f"dllm_lightning.{room}.") for _, part in ours(file))


def test_every_part_can_be_chosen() -> None:
    """A concrete part without a YAML could be used in Python alone."""
    reachable = {get_object(part._target_) for file in PARTS for _, part in ours(file)}
    made_by_others = {Relaxed}  # Duo makes it of its alpha_range
    assert {leaf for family in FAMILIES for leaf in leaves(family)} - made_by_others <= reachable


def test_model_duo_alone_brings_its_household() -> None:
    cfg = composed("model=duo")
    brought = {key: str(cfg[key]._target_).rpartition(".")[2] for key in ("process", "noise", "loss", "sampler")}
    assert [*brought.values()] == ["UniformDiffusion", "LogLinear", "Elbo", "Ancestral"]
    assert {*cfg.callbacks} >= {"checkpoint", "samples", "summary", "temperature"}
    assert settled(cfg).backbone.time_conditioning is True
    assert settled(composed("model=duo", "backbone.time_conditioning=false")).backbone.time_conditioning is False
    assert settled(composed("model=mdm")).backbone.time_conditioning is False


def test_model_mdm_alone_brings_its_household() -> None:
    cfg = composed("model=mdm")
    brought = {key: str(cfg[key]._target_).rpartition(".")[2] for key in ("process", "noise", "loss", "sampler")}
    assert [*brought.values()] == ["MaskedDiffusion", "LogLinear", "WeightedCE", "Reveal"]
    assert cfg.loss.weight == "elbo" and cfg.loss.max_weight is None  # the bound itself
    assert {*cfg.callbacks} >= {"checkpoint", "samples", "summary"}


@pytest.mark.parametrize("name", names("experiment"))
def test_an_experiment_has_the_last_word_before_the_command_line(name: str) -> None:
    written = OmegaConf.load(CONF / "experiment" / f"{name}.yaml")
    assert isinstance(written, DictConfig)
    for key in ("defaults", "hydra"):  # Hydra keeps its own part to itself
        written.pop(key, None)
    cfg = composed(f"experiment={name}")
    assert OmegaConf.merge(cfg, written) == cfg
    assert composed(f"experiment={name}", "optimizer.lr=0.5", "data.batch_size=3").optimizer.lr == 0.5


def test_the_original_recipe_has_every_number_of_the_original() -> None:
    cfg = composed("experiment=mdm_original")
    assert (cfg.noise.min_ratio, cfg.noise.max_ratio) == (0.15, 0.99)
    assert (cfg.process.replace.mask, cfg.process.replace.random, cfg.process.replace.keep) == (0.8, 0.1, 0.1)
    assert cfg.process.hiding._target_ == "dllm_lightning.process.FloorCount"
    assert (cfg.loss._target_, cfg.loss.per) == ("dllm_lightning.loss.MaskedCE", "token")
    assert (cfg.data.max_length, cfg.data.batch_size, cfg.data.packing) == (512, 32, False)
    assert (cfg.data.validation_size, cfg.data.split_seed, cfg.trainer.precision) == (0.05, 42, "bf16-mixed")


def declared(target: Any) -> dict[str, Any]:
    """The parameters that our own code declares, with their defaults; not those of a library's class above it."""
    kinds = target.__mro__ if inspect.isclass(target) else (target,)
    found: dict[str, Any] = {}
    for kind in (kind for kind in kinds if kind.__module__.startswith("dllm_lightning.")):
        function = vars(kind).get("__init__", lambda: None) if inspect.isclass(kind) else kind
        taken = inspect.signature(function).parameters
        named = (each for each in taken.values() if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY))
        found = {each.name: each.default for each in named if each.name != "self"} | found
    return found


def read_in(target: Any) -> set[str]:
    """The names that the constructors of a class, or a function, load."""
    functions = [vars(kind).get("__init__") for kind in target.__mro__] if inspect.isclass(target) else [target]
    written = [f for f in functions if inspect.isfunction(f) and Path(f.__code__.co_filename) in SOURCE]
    nodes = (node for f in written for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(f)))))
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
