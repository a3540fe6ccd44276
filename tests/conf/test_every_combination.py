"""Every combination of the parts in conf/ trains a step and writes a text, or is refused by name: no third outcome."""

from __future__ import annotations

import copy
import itertools
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from dllm_lightning.backbone import Backbone
from dllm_lightning.compatibility import IncompatibleParts, check_compatible
from dllm_lightning.model import AdamW, DiffusionModule
from dllm_lightning.model.denoiser import NetworkDenoiser
from dllm_lightning.sampler import Sampler
from dllm_lightning.types import Canvas, Vocab
from tests.conf.configurations import TINY, composed, names

K, MASK = 24, 23
VOCAB = Vocab(K, K, MASK, pad_id=0, eos_id=1, noise_ids=torch.arange(2, MASK))
BOUNDS = {"from 0 to 1": (0.0, 1.0), "from .15 to .99": (0.15, 0.99), "fixed at .5": (0.5, 0.5)}


class Choice(NamedTuple):
    """One combination, by the names of its files. Every sampler is tried on what was trained with it."""

    model: str
    process: str
    hiding: str
    replace: str
    noise: str
    loss: str

    def __str__(self) -> str:
        return " ".join(self)


GROUPS = ("model", "process", "process/hiding", "process/replace", "noise", "loss")
EVERY = [Choice(*parts) for parts in itertools.product(*map(names, GROUPS))]


@cache
def option(group: str, name: str) -> DictConfig:
    return composed(f"{group}={name}")[group]


@cache
def process_of(choice: tuple[str, str, str]) -> DictConfig:
    process, hiding, replace = choice
    return composed(f"process={process}", f"process/hiding={hiding}", f"process/replace={replace}").process


@pytest.fixture(scope="module")
def network() -> Backbone:
    torch.manual_seed(0)
    cfg = composed(*TINY).backbone.copy()
    cfg.config = {**cfg.config, "vocab_size": K, "pad_token_id": VOCAB.pad_id}
    return instantiate(cfg)


def canvas() -> Canvas:
    """Four rows: a prompt of three, an answer of eight, and padding in one of them."""
    ids = torch.arange(4 * 12).reshape(4, 12) % (MASK - 2) + 2
    editable = (torch.arange(12) >= 3).expand(4, 12).clone()
    segment = torch.ones_like(ids)
    segment[3, 10:], editable[3, 10:] = 0, False
    return Canvas(ids, editable, segment)


def assembled(
    choice: Choice, network: Backbone, bounds: tuple[float, float] = (0.0, 1.0)
) -> tuple[DiffusionModule, list[Sampler]]:
    """The module, and the samplers that go with it. Raises IncompatibleParts for parts that do not go together."""
    schedule = instantiate(option("noise", choice.noise), min_ratio=bounds[0], max_ratio=bounds[1])
    process = instantiate(process_of((choice.process, choice.hiding, choice.replace)))(VOCAB, schedule)
    loss, model = instantiate(option("loss", choice.loss)), instantiate(option("model", choice.model))
    samplers = []
    for name in names("sampler"):
        sampler = instantiate(option("sampler", name), steps=3)
        try:
            check_compatible(model.func, process, loss, sampler)
        except IncompatibleParts as refusal:
            if type(sampler).__name__ not in str(refusal):  # it is not about the sampler
                raise
        else:
            samplers.append(sampler)
    return model(process, copy.deepcopy(network), loss, AdamW(lr=0.1), validation_draws=1), samplers


def trains_validates_and_writes(module: DiffusionModule, samplers: list[Sampler]) -> None:
    trainer: Any = SimpleNamespace(global_step=0, global_rank=0, world_size=1, accumulate_grad_batches=1)
    module._trainer = trainer
    before = [p.clone() for p in module.parameters()]
    optimizer = module.optimizer.optimizer(module)
    module.training_step(module.corrupt(canvas()), 0).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())
    optimizer.step()
    assert any((p != old).any() for p, old in zip(module.parameters(), before, strict=True)), "it learnt nothing"

    with torch.no_grad():
        module.validation_step(canvas(), 0)
    assert module.bound.compute().mean.isfinite()

    asked = canvas()
    denoiser = NetworkDenoiser(module.backbone, module.process)
    for sampler in samplers:
        written = sampler.sample(denoiser, asked, torch.Generator().manual_seed(0))
        assert not (written == MASK).any(), f"{sampler} left masks"
        assert written[~asked.editable].equal(asked.ids[~asked.editable]), f"{sampler} touched the prompt"


@pytest.mark.parametrize("choice", EVERY, ids=str)
def test_it_trains_and_writes_or_is_refused(choice: Choice, network: Backbone) -> None:
    try:
        module, samplers = assembled(choice, network)
    except IncompatibleParts as refusal:
        assert str(refusal).count("\n") == 0 and str(refusal).endswith("."), "not a sentence"
        assert choice.loss == "elbo", "only the true bound is particular"
        assert choice.hiding == "floor_count" or choice.replace != "mask", "a bound was refused that there is"
        return
    assert choice.loss != "elbo" or (choice.hiding != "floor_count" and choice.replace == "mask")
    assert len(samplers) == len(names("sampler"))
    trains_validates_and_writes(module, samplers)


@pytest.mark.parametrize("bounds", [name for name in BOUNDS if name != "from 0 to 1"])
@pytest.mark.parametrize("loss", names("loss"))
@pytest.mark.parametrize("hiding", names("process/hiding"))
@pytest.mark.parametrize("noise", names("noise"))
def test_bounds_of_the_mask_ratio_leave_no_third_outcome_either(
    noise: str, hiding: str, loss: str, bounds: str, network: Backbone
) -> None:
    """A bounded ratio has no bound; a fixed one leaves the weights of the bound nothing but zeros."""
    try:
        module, samplers = assembled(Choice("mdm", "masked", hiding, "mask", noise, loss), network, BOUNDS[bounds])
    except IncompatibleParts as refusal:
        assert loss == "elbo" or (loss == "weighted_ce" and bounds.startswith("fixed"))
        assert "loss" in str(refusal)  # the way out
        return
    assert loss != "elbo"
    trains_validates_and_writes(module, samplers[:1])


def test_there_is_something_to_combine() -> None:
    assert len(EVERY) >= 4 * 3 * 4 * 3 and len(names("sampler")) >= 3
