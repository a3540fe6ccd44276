"""Every combination of the parts in conf/ trains a step and writes a text, or is refused by name: no third outcome."""

from __future__ import annotations

import copy
import dataclasses
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
    process: tuple[str, ...]
    noise: str
    loss: str

    def __str__(self) -> str:
        return " ".join((self.model, *self.process, self.noise, self.loss))


PROCESSES = [
    *(("masked", *parts) for parts in itertools.product(names("process/hiding"), names("process/replace"))),
    *((name,) for name in names("process") if name != "masked"),
]
EVERY = [Choice(*parts) for parts in itertools.product(names("model"), PROCESSES, names("noise"), names("loss"))]

MADE_FOR = {
    "masked": ({"mdm"}, {"elbo", "masked_ce", "weighted_ce"}),
    "uniform": ({"duo"}, {"elbo", "ce", "symmetric_kl"}),
}
"""The models and losses of each process, written here once more and not read off the parts."""
TOLD_APART = {("duo_distill", "uniform", "consistency")}
"""A model with a loss of its own."""


TAUGHT: dict[str, dict[str, Any]] = {}
"""What a model needs besides its parts."""


def belongs(choice: Choice) -> bool:
    """Whether a combination has a meaning."""
    kind, *rest = choice.process
    if (choice.model, kind, choice.loss) in TOLD_APART:
        return True
    models, losses = MADE_FOR[kind]
    bound = kind == "uniform" or (rest[0] != "floor_count" and rest[1] == "mask")
    return choice.model in models and choice.loss in losses and (choice.loss != "elbo" or bound)


@cache
def option(group: str, name: str) -> DictConfig:
    return composed(f"{group}={name}")[group]


@cache
def every_sampler() -> list[Sampler]:
    """They are frozen, so all combinations share them."""
    return [in_steps(3, instantiate(option("sampler", name))) for name in names("sampler")]


@cache
def process_of(parts: tuple[str, ...]) -> DictConfig:
    groups = ("process", "process/hiding", "process/replace")
    return composed(*(f"{group}={name}" for group, name in zip(groups, parts, strict=False))).process


@pytest.fixture(scope="module")
def network() -> Backbone:
    torch.manual_seed(0)
    cfg = composed(*TINY).backbone.copy()
    cfg.config = {**cfg.config, "vocab_size": K, "pad_token_id": VOCAB.pad_id}
    return instantiate(cfg)


@pytest.fixture(scope="module", autouse=True)
def teacher(network: Backbone, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A Duo with the weights of the network, for the model that learns from one."""
    file = tmp_path_factory.mktemp("duo") / "last.ckpt"
    process = {"_target_": "dllm_lightning.process.UniformDiffusion"}
    states = {f"backbone.{name}": value for name, value in network.state_dict().items()}
    recipe = {"config": {"process": process}, "backbone": {}, "tokenizer": {}}
    torch.save({"recipe": recipe, "state_dict": states}, file)
    TAUGHT["duo_distill"] = {"teacher": str(file), "delta": 0.5}


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
    process = instantiate(process_of(choice.process))(VOCAB, schedule)
    loss, model = instantiate(option("loss", choice.loss)), instantiate(option("model", choice.model))
    samplers = []
    for sampler in every_sampler():
        try:
            check_compatible(model.func, process, loss, sampler)
        except IncompatibleParts as refusal:
            if type(sampler).__name__ not in str(refusal):  # it is not about the sampler
                raise
        else:
            samplers.append(sampler)
    needed = TAUGHT.get(choice.model, {})
    return model(process, copy.deepcopy(network), loss, AdamW(lr=0.1), validation_draws=1, **needed), samplers


def in_steps(steps: int, sampler: Any) -> Any:
    """The sampler with this number of steps, where it or what it wraps goes by one."""
    if hasattr(sampler, "inner"):
        return dataclasses.replace(sampler, inner=in_steps(steps, sampler.inner))
    goes_by_steps = getattr(getattr(sampler, "pace", None), "shares", True)
    return dataclasses.replace(sampler, steps=steps) if goes_by_steps else sampler


def trains_validates_and_writes(module: DiffusionModule, samplers: list[Sampler]) -> None:
    trainer: Any = SimpleNamespace(global_step=0, global_rank=0, world_size=1, accumulate_grad_batches=1)
    trainer.max_steps, trainer.estimated_stepping_batches, trainer.datamodule = 2, 2, None
    trainer.ckpt_path, trainer.is_global_zero = None, False
    module._trainer = trainer
    module.on_train_start()
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


TOGETHER = [*filter(belongs, EVERY)]


@pytest.mark.parametrize("choice", TOGETHER, ids=str)
def test_what_belongs_together_trains_and_writes(choice: Choice, network: Backbone) -> None:
    """A sampler sees of all this the network and the plain process: each combination tries one of them, in turn."""
    module, samplers = assembled(choice, network)
    assert len(samplers) >= 3
    trains_validates_and_writes(module, [samplers[TOGETHER.index(choice) % len(samplers)]])


@pytest.mark.parametrize("choice", {(each.model, each.process[0]): each for each in TOGETHER}.values(), ids=str)
def test_what_belongs_together_writes_with_every_sampler_that_accepts_it(choice: Choice, network: Backbone) -> None:
    trains_validates_and_writes(*assembled(choice, network))


@pytest.mark.parametrize("process", PROCESSES, ids=" ".join)
@pytest.mark.parametrize("model", names("model"))
def test_what_does_not_belong_together_is_refused_in_a_sentence(
    model: str, process: tuple[str, ...], network: Backbone
) -> None:
    for choice in EVERY:
        if (choice.model, choice.process) == (model, process) and not belongs(choice):
            with pytest.raises(IncompatibleParts) as refusal:
                assembled(choice, network)
            said = str(refusal.value)
            assert said.count("\n") == 0 and said.endswith("."), "not a sentence"


@pytest.mark.parametrize("bounds", [name for name in BOUNDS if name != "from 0 to 1"])
@pytest.mark.parametrize("loss", sorted(MADE_FOR["masked"][1]))
@pytest.mark.parametrize("hiding", names("process/hiding"))
@pytest.mark.parametrize("noise", names("noise"))
def test_bounds_of_the_mask_ratio_leave_no_third_outcome_either(
    noise: str, hiding: str, loss: str, bounds: str, network: Backbone
) -> None:
    """A bounded ratio has no bound; a fixed one leaves the weights of the bound nothing but zeros."""
    try:
        module, samplers = assembled(Choice("mdm", ("masked", hiding, "mask"), noise, loss), network, BOUNDS[bounds])
    except IncompatibleParts as refusal:
        assert loss == "elbo" or (loss == "weighted_ce" and bounds.startswith("fixed"))
        assert "loss" in str(refusal)  # the way out
        return
    assert loss != "elbo"
    trains_validates_and_writes(module, samplers[:1])


def test_there_is_something_to_combine() -> None:
    assert sum(map(belongs, EVERY)) >= 100 and len(names("sampler")) >= 3
