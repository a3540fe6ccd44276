"""What every sampler owes: the clean text where it is known, no mask left, no other slot touched, the same draw again.

The samplers are those of conf/sampler: a new one enters these laws by existing, under every noise that it accepts.
"""

from __future__ import annotations

import contextlib
import itertools
from functools import cache
from typing import Any

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from dllm_lightning.model.denoiser import NetworkDenoiser
from dllm_lightning.noise import Cosine, Geometric, LogLinear
from dllm_lightning.process import MaskedDiffusion, Process, UniformDiffusion
from dllm_lightning.sampler import CannotUndo, Refine, Reveal, Sampler
from dllm_lightning.types import Canvas
from tests.conf.configurations import composed, names
from tests.laws.parts import mixed_batch, seeded, vocabulary
from tests.sampler.denoisers import LittleNetwork, Oracle, Table, blank

UNKNOWN = object()
VOCAB = vocabulary(11)
SCHEDULES = (LogLinear(), Cosine(), Geometric(), LogLinear(0.0, 0.999))
KINDS: tuple[type[Process], ...] = (MaskedDiffusion, UniformDiffusion)
SHORT = 6
CHANGES: tuple[tuple[str, ...], ...] = (
    ("steps=1",),
    ("steps=4",),
    ("proposal.temperature=0.0",),
    ("proposal.temperature=1.0",),
    ("tokens_per_step=3",),
    ("proposal.top_p=0.5", "greedy_tail=True"),
    ("proposal.top_k=3", "proposal.min_p=0.1", "proposal.no_end=True"),
    ("proposal.end_last=True",),
    ("evidence=True",),
    ("block=1",),
    ("block=99", "stop=False"),
    ("weight=0.0",),
)
PARTS = {
    "confidence": [
        *(f"sampler/{group}={part}" for group in ("order", "pace", "undo") for part in names(f"sampler/{group}")),
        "sampler.pace.at_random=true sampler/pace=scheduled",
        "sampler/pace=scheduled sampler.steps=4",
        "sampler/undo=replan sampler/pace=threshold",
        "sampler/undo=at_random sampler.undo.share=0.9 sampler/pace=several",
    ],
    "blockwise": [f"sampler@sampler.inner={name}" for name in ("ancestral", "refine", "psi", "threshold", "p2")],
    "guided": ["sampler@sampler.inner=blockwise", "sampler@sampler.inner=refine"],
}
"""What else may be put together."""


@cache
def samplers(changed: bool) -> list[Any]:
    """Each shipped sampler (in SHORT strides at most); and each kind of them with what else it can be told."""
    found, known = [], set()
    for file in names("sampler"):
        shipped = composed(f"sampler={file}").sampler
        if isinstance(shipped.get("steps"), int):
            shipped.steps = min(shipped.steps, SHORT)
        found.append(pytest.param(instantiate(shipped), id=file))
        for change in CHANGES if changed and shipped._target_ not in known else ():
            wanted = OmegaConf.from_dotlist([*change])
            if all(
                OmegaConf.select(shipped, each.partition("=")[0], default=UNKNOWN) is not UNKNOWN for each in change
            ):
                with contextlib.suppress(InstantiationException):  # refused, as other tests know
                    name = " ".join([file, *change])
                    found.append(pytest.param(instantiate(OmegaConf.merge(shipped, wanted)), id=name))
        for parts in PARTS.get(file, ()) if changed else ():
            put_together = composed(f"sampler={file}", *parts.split()).sampler
            inner = put_together.get("inner", {})
            if isinstance(inner.get("steps"), int):
                inner.steps = min(inner.steps, SHORT)
            found.append(pytest.param(instantiate(put_together), id=f"{file} {parts}"))
        known.add(shipped._target_)
    return found


def undoes(sampler: Any, process: Process) -> bool:
    return sampler.reason_against(process) is None


def pairs(*schedules: Any, changed: bool = False) -> Any:
    """Every sampler with every process that it can undo."""
    processes = [kind(VOCAB, schedule) for kind, schedule in itertools.product(KINDS, schedules)]
    return pytest.mark.parametrize(
        ("sampler", "process"),
        [
            pytest.param(*sampler.values, process, id=f"{sampler.id} {type(process).__name__} {process.schedule}")
            for sampler, process in itertools.product(samplers(changed), processes)
            if undoes(*sampler.values, process)
        ],
    )


every_sampler = pairs(LogLinear(), changed=True)


def network(process: Process) -> NetworkDenoiser:
    return NetworkDenoiser(LittleNetwork(VOCAB), process)  # type: ignore[arg-type]


def hidden(canvas: Canvas) -> Canvas:
    """The canvas with its answers taken out, and every fifth token a mask that stays."""
    ids = torch.where(canvas.editable, VOCAB.mask_id, canvas.ids)
    ids[:, ::5] = VOCAB.mask_id
    return canvas._replace(ids=ids)


@cache
def messy() -> tuple[Canvas, Tensor]:
    """Packed and padded rows with prompts and masks in them, and the clean text."""
    clean = mixed_batch(VOCAB, seeded(0), rows=4, length=16)
    clean = clean._replace(ids=torch.where(clean.ids == VOCAB.eos_id, 2, clean.ids))  # no answer ends before its slots
    canvas = hidden(clean)
    return canvas, torch.where(canvas.editable, clean.ids, canvas.ids)


@pairs(*SCHEDULES)
def test_with_a_network_that_knows_the_answer_the_answer_comes_out(sampler: Sampler, process: Process) -> None:
    canvas, x0 = messy()
    assert torch.equal(sampler.sample(Oracle(x0, process), canvas, seeded(1)), x0)


@pairs(LogLinear())
def test_with_a_network_that_knows_the_answer_a_draft_is_completed(sampler: Sampler, process: Process) -> None:
    """Masks in it are filled whatever the noise; that a token is wrong, only some samplers can find out."""
    canvas, x0 = messy()
    gaps = torch.rand(x0.shape, generator=seeded(2)) < 0.4
    draft = torch.where(canvas.editable & gaps, VOCAB.mask_id, x0)
    assert torch.equal(sampler.sample(Oracle(x0, process), canvas, seeded(1), draft), x0)
    if isinstance(process, UniformDiffusion):
        other = torch.where(canvas.editable & gaps, (x0 + 1) % VOCAB.mask_id, x0)
        assert torch.equal(sampler.sample(Oracle(x0, process), canvas, seeded(1), other), x0)


@every_sampler
def test_no_mask_is_left_and_nothing_else_is_touched(sampler: Sampler, process: Process) -> None:
    canvas, _ = messy()
    for draft in (None, torch.full_like(canvas.ids, VOCAB.mask_id)):
        text = sampler.sample(network(process), canvas, seeded(1), draft)
        assert not (text[canvas.editable] == VOCAB.mask_id).any()
        assert (text[canvas.editable] < VOCAB.length).all()
        assert torch.equal(text[~canvas.editable], canvas.ids[~canvas.editable])


@pairs(LogLinear())
def test_the_same_generator_writes_the_same_text(sampler: Sampler, process: Process) -> None:
    canvas, _ = messy()
    first, again = (sampler.sample(network(process), canvas, seeded(7)) for _ in range(2))
    assert torch.equal(first, again)


@every_sampler
def test_a_trajectory_goes_from_noise_to_text_without_a_gap(sampler: Sampler, process: Process) -> None:
    """Time may stand still, and it ends before 0 only where what is left to do is an estimate."""
    canvas, _ = messy()
    x, t = process.prior(canvas, seeded(1)), 1.0
    for index, step in enumerate(sampler.trajectory(network(process), canvas, seeded(1))):
        assert step.index == index and step.t == t and step.s <= step.t
        assert torch.equal(step.changed, step.x != x)
        assert (step.confidence[~step.changed] == 0).all() and (step.confidence <= 1).all()
        assert ((step.confidence > 0) | (step.x == VOCAB.mask_id))[step.changed].all()
        x, t = step.x, step.s
    assert t == 0.0 or isinstance(getattr(sampler, "inner", sampler), Refine)


@pairs(LogLinear())
def test_where_nothing_may_change_nothing_happens(sampler: Sampler, process: Process) -> None:
    canvas = blank(0, 0)
    assert list(sampler.trajectory(network(process), canvas)) == []
    assert torch.equal(sampler.sample(network(process), canvas), canvas.ids)


@pairs(LogLinear())
def test_an_answer_of_one_slot_is_written(sampler: Sampler, process: Process) -> None:
    canvas = blank(1)
    for seed in range(4):  # among them a first random token that is the network's own
        text = sampler.sample(network(process), canvas, seeded(seed))
        assert text[0, -1] != VOCAB.mask_id and torch.equal(text[0, :-1], canvas.ids[0, :-1])


@pairs(LogLinear())
def test_what_it_was_handed_is_left_as_it_was(sampler: Sampler, process: Process) -> None:
    canvas, draft = messy()
    before, written = canvas.ids.clone(), draft.clone()
    sampler.sample(network(process), canvas, seeded(1))
    sampler.sample(network(process), canvas, seeded(1), draft)
    assert torch.equal(canvas.ids, before) and torch.equal(draft, written)


@pytest.mark.parametrize("sampler", samplers(changed=False))
def test_a_process_that_cannot_be_walked_back_is_refused_at_once(sampler: Sampler) -> None:
    class Elsewhere(Table):
        process = object()

        def table(self, x_t: Tensor, t: Tensor, at: Tensor) -> Tensor:
            raise AssertionError("never asked")

    with pytest.raises(CannotUndo, match=f"{type(sampler).__name__} walks back through"):
        sampler.trajectory(Elsewhere(), blank(3))


def test_a_reveal_leaves_what_a_draft_says() -> None:
    canvas, x0 = messy()
    process = MaskedDiffusion(VOCAB, LogLinear())
    for sampler in (each.values[0] for each in samplers(changed=True)):
        if isinstance(sampler, Reveal):
            assert torch.equal(sampler.sample(network(process), canvas, seeded(1), x0), x0)


def test_every_noise_has_samplers() -> None:
    assert all(
        sum(undoes(*sampler.values, kind(VOCAB, LogLinear())) for sampler in samplers(changed=False)) > 5
        for kind in KINDS
    )
