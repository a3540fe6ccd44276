"""What every sampler owes: the clean text where it is known, no mask left, no other slot touched, the same draw again.

The samplers are those of conf/sampler: a new one enters these laws by existing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from dllm_lightning.model.denoiser import NetworkDenoiser
from dllm_lightning.noise import Cosine, Geometric, LogLinear
from dllm_lightning.process import MaskedDiffusion
from dllm_lightning.sampler import CannotUndo, Sampler
from dllm_lightning.types import Canvas
from tests.laws.parts import mixed_batch, seeded, vocabulary
from tests.sampler.denoisers import LittleNetwork, Oracle, blank

CONF = Path(__file__).resolve().parents[2] / "conf" / "sampler"
VOCAB = vocabulary(11)
PROCESSES = [
    MaskedDiffusion(VOCAB, schedule) for schedule in (LogLinear(), Cosine(), Geometric(), LogLinear(0.0, 0.999))
]


def samplers() -> list[Any]:
    """Each shipped sampler as shipped, and with every pace and temperature that it knows."""
    found = []
    for file in sorted(CONF.glob("*.yaml")):
        shipped = OmegaConf.load(file)
        for change in (
            {},
            {"steps": 1},
            {"steps": 5},
            {"temperature": 0.0},
            {"temperature": 1.0},
            {"tokens_per_step": 3},
        ):
            if change.keys() <= shipped.keys():
                name = " ".join([file.stem, *(f"{k}={v}" for k, v in change.items())])
                found.append(pytest.param(instantiate(OmegaConf.merge(shipped, change)), id=name))
    return found


every_sampler = pytest.mark.parametrize("sampler", samplers())


def network() -> NetworkDenoiser:
    return NetworkDenoiser(LittleNetwork(VOCAB), PROCESSES[0])  # type: ignore[arg-type]


def hidden(canvas: Canvas) -> Canvas:
    """The canvas with its answers taken out, and every fifth token a mask that stays."""
    ids = torch.where(canvas.editable, VOCAB.mask_id, canvas.ids)
    ids[:, ::5] = VOCAB.mask_id
    return canvas._replace(ids=ids)


def messy() -> tuple[Canvas, Tensor]:
    """Packed and padded rows with prompts and masks in them, and the clean text."""
    clean = mixed_batch(VOCAB, seeded(0))
    canvas = hidden(clean)
    return canvas, torch.where(canvas.editable, clean.ids, canvas.ids)


@every_sampler
@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: str(process.schedule))
def test_with_a_network_that_knows_the_answer_the_answer_comes_out(sampler: Sampler, process: MaskedDiffusion) -> None:
    canvas, x0 = messy()
    assert torch.equal(sampler.sample(Oracle(x0, process), canvas, seeded(1)), x0)


@every_sampler
def test_no_mask_is_left_and_nothing_else_is_touched(sampler: Sampler) -> None:
    canvas, _ = messy()
    text = sampler.sample(network(), canvas, seeded(1))
    assert not (text[canvas.editable] == VOCAB.mask_id).any()
    assert (text[canvas.editable] < VOCAB.length).all()
    assert torch.equal(text[~canvas.editable], canvas.ids[~canvas.editable])


@every_sampler
def test_the_same_generator_writes_the_same_text(sampler: Sampler) -> None:
    canvas, _ = messy()
    first, again = (sampler.sample(network(), canvas, seeded(7)) for _ in range(2))
    assert torch.equal(first, again)


@every_sampler
def test_a_trajectory_goes_from_noise_to_text_without_a_gap(sampler: Sampler) -> None:
    canvas, _ = messy()
    x, t = PROCESSES[0].prior(canvas), 1.0
    for index, step in enumerate(sampler.trajectory(network(), canvas, seeded(1))):
        assert step.index == index and step.t == t and step.s < step.t
        assert torch.equal(step.changed, step.x != x)
        assert ((step.confidence > 0) == step.changed).all() and (step.confidence <= 1).all()
        x, t = step.x, step.s
    assert index > 0 or t == 0.0


@every_sampler
def test_where_nothing_may_change_nothing_happens(sampler: Sampler) -> None:
    canvas = blank(0, 0)
    assert list(sampler.trajectory(network(), canvas)) == []
    assert torch.equal(sampler.sample(network(), canvas), canvas.ids)


@every_sampler
def test_an_answer_of_one_slot_is_written(sampler: Sampler) -> None:
    canvas = blank(1)
    text = sampler.sample(network(), canvas, seeded(2))
    assert text[0, -1] != VOCAB.mask_id and torch.equal(text[0, :-1], canvas.ids[0, :-1])


@every_sampler
def test_the_canvas_it_was_handed_is_left_as_it_was(sampler: Sampler) -> None:
    canvas, _ = messy()
    before = canvas.ids.clone()
    sampler.sample(network(), canvas, seeded(1))
    assert torch.equal(canvas.ids, before)


@every_sampler
def test_a_process_that_cannot_be_walked_back_is_refused_at_once(sampler: Sampler) -> None:
    class Elsewhere:
        process = object()

        def __call__(self, x_t: Tensor, t: Tensor, segment: Tensor, at: Tensor) -> Tensor:
            raise AssertionError("never asked")

    with pytest.raises(CannotUndo, match=f"{type(sampler).__name__} walks back through"):
        sampler.trajectory(Elsewhere(), blank(3))  # type: ignore[arg-type]
