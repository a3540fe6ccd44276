"""Duo: the curriculum first, then the true bound; soft tokens that turn hard; nothing but the answer is touched."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from dllm_lightning.loss import Elbo
from dllm_lightning.process import Relaxed, UniformDiffusion
from dllm_lightning.types import Canvas
from tests.model.duo_parts import duo
from tests.model.parts import VOCAB, Data, canvas, documents, packed, quiet


def started(module: Any, step: int = 0, steps: int = 100) -> Any:
    module._trainer = SimpleNamespace(
        global_step=step,
        global_rank=0,
        world_size=1,
        accumulate_grad_batches=1,
        max_steps=steps,
        estimated_stepping_batches=steps,
        datamodule=None,
    )
    return module


def gradient(module: Any, batch: Any) -> list[torch.Tensor]:
    module.zero_grad()
    module.training_step(batch, 0).backward()
    return [p.grad.clone() for p in module.parameters() if p.grad is not None]


@pytest.mark.parametrize(("curriculum", "last"), [(0.25, 25), (40, 40), (0, 0)])
def test_the_curriculum_ends_at_its_step_or_share_of_the_run(curriculum: float, last: int) -> None:
    module = duo(curriculum=curriculum)
    for step in (0, last - 1, last, 99):
        if step >= 0:
            started(module, step)
            assert module.in_curriculum == (step < last)
            batch = module.corrupt(canvas(documents(6)))
            assert (batch.soft is not None) == (step < last)
            assert isinstance(module.training_process.schedule, Relaxed) == (step < last)


def test_in_the_curriculum_noise_stays_in_its_range() -> None:
    module = started(duo(alpha_range=[0.8, 0.3]))
    many = canvas([([5] * 40, 4)] * 200)
    batch = module.corrupt(many)
    alpha = module.training_process.schedule.alpha(batch.t[many.editable])
    assert 0.3 <= alpha.min() < 0.31 and 0.79 < alpha.max() <= 0.8
    kept = (batch.x_t == many.ids)[many.editable].float().mean().item()
    states = module.process.count
    expected = (alpha + (1 - alpha) / states).mean().item()
    assert kept == pytest.approx(expected, abs=4 * (0.25 / many.editable.sum().item()) ** 0.5)


def test_the_originals_noise_weights_set_the_range() -> None:
    """gamma = 2 log(w / (1 - w))."""
    module = duo(noise_weights=[0.25, 0.5])
    weights = torch.tensor([0.25, 0.5], dtype=torch.float64)
    expected = 2 * (weights / (1 - weights)).log()
    assert_close(module.relaxed.process.schedule.gamma(torch.tensor([0.0, 1.0], dtype=torch.float64)), expected)


def test_as_tau_falls_soft_tokens_become_hard_ones() -> None:
    """At 1e-10 loss and gradient are those of the argmax; at 0 there are no soft tokens at all."""
    sides = []
    for tau in (1e-10, 0.0):
        module = started(duo(tau=tau))
        batch = module.corrupt(canvas(documents(6)))
        assert (batch.soft is None) == (tau == 0.0)
        sides.append((batch.x_t, module.training_step(batch, 0).detach(), gradient(module, batch)))
    (x_t, nats, found), (hard_x_t, hard_nats, expected) = sides
    assert torch.equal(x_t, hard_x_t)
    assert_close(nats, hard_nats)
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_warm_tau_shows_the_network_something_else() -> None:
    module = started(duo(tau=0.3))
    batch = module.corrupt(canvas(documents(6)))
    hard = batch._replace(soft=None)
    assert not torch.allclose(module.training_step(batch, 0), module.training_step(hard, 0))


@pytest.mark.parametrize("step", [0, 99], ids=["soft", "hard"])
def test_prompts_and_padding_are_never_touched(step: int) -> None:
    module = started(duo(tau=0.3), step)
    clean = canvas(documents(9), left=2, extra=3)
    batch = module.corrupt(clean)
    assert torch.equal(batch.x_t[~clean.editable], clean.ids[~clean.editable])
    assert not batch.asked[~clean.editable].any()
    if batch.soft is not None:
        assert clean.editable.flatten()[batch.soft.at].all()


@pytest.mark.parametrize("step", [0, 99], ids=["soft", "hard"])
def test_packed_rows_have_one_time_per_document_and_the_loss_of_single_ones(step: int) -> None:
    """Each document of a packed row, laid out alone with the noise it had, costs the same."""
    module = started(duo(tau=0.3), step)
    row = packed(documents(5))
    batch = module.corrupt(row)
    times = [batch.t[row.segment == number].unique() for number in range(1, 6)]
    assert all(len(time) == 1 for time in times) and len({time.item() for time in times}) == 5
    together, apart = module.training_step(batch, 0), 0.0
    for number in range(1, 6):
        mine = row.segment == number
        alone = Canvas(*(field[mine][None] for field in row))._replace(segment=torch.ones(1, int(mine.sum())).long())
        soft = batch.soft
        if soft is not None:
            keep = mine.flatten()[soft.at]
            start = int(mine.flatten().nonzero()[0])
            soft = soft._replace(
                at=soft.at[keep] - start, ids=soft.ids[keep], weight=soft.weight[keep], rest=soft.rest[keep]
            )
        fields = (field[mine][None] for field in (batch.x_t, batch.t, batch.asked))
        apart = apart + module.training_step(type(batch)(alone, *fields, soft), 0)
    assert_close(together, apart, rtol=1e-4, atol=1e-3)


def test_validation_is_the_true_bound_whatever_is_trained() -> None:
    """With the curriculum on or off, and whatever tau."""
    found = []
    for options in ({"curriculum": 0.5, "tau": 0.3}, {"curriculum": 0}):
        module = started(duo(Elbo(), **options)).eval()
        module.validation_step(canvas(documents(6)), 0)
        found.append(module.bound.compute().mean)
    assert_close(found[0], found[1])


def test_a_step_is_the_same_however_its_batch_is_cut_and_whoever_goes_on_with_it(tmp_path: Path) -> None:
    """Soft tokens are drawn for places of the global batch, as all noise is; and the curriculum is one of steps."""
    rows = [canvas(documents(8, seed), extra=40)._replace() for seed in range(4)]
    rows = [Canvas(*(field[:, :40] for field in batch)) for batch in rows]

    def trained(batches: list[Canvas], steps: int = 4, checkpoint: Path | None = None, **options: Any) -> Any:
        module = duo(curriculum=2, tau=0.1, top_k=3)
        trainer = quiet(tmp_path, max_epochs=-1, max_steps=steps, **options)
        trainer.fit(module, Data(batches), ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / f"{steps}.ckpt")
        return [p.detach().clone() for p in module.parameters()]

    halves = [Canvas(*(field[half] for field in batch)) for batch in rows for half in (slice(4), slice(4, 8))]
    whole, cut = trained(rows), trained(halves, accumulate_grad_batches=2)
    for one, other in zip(whole, cut, strict=True):
        assert_close(one, other, rtol=1e-3, atol=1e-5)
    trained(rows, steps=1)
    resumed = trained([*rows[1:], rows[0]], checkpoint=tmp_path / "1.ckpt")
    assert all(torch.equal(one, other) for one, other in zip(whole, resumed, strict=True))


def test_it_trains(tmp_path: Path) -> None:
    """Through the curriculum and after it, on a handful of answers that it learns by heart."""
    rows = canvas(documents(8))
    module = duo(curriculum=0.5, top_k=4, tau=1e-2, time_conditioning=True)
    before = module.eval().bound
    started(module).validation_step(rows, 0)
    at_first = before.compute().mean.item()
    module.bound.reset()
    quiet(tmp_path, max_epochs=-1, max_steps=60).fit(module.train(), Data([rows] * 60))
    started(module.eval()).validation_step(rows, 0)
    assert module.bound.compute().mean.item() < 0.95 * at_first
    assert module.backbone.time.outer.weight.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"curriculum": -1}, "model.curriculum=-1"),
        ({"tau": -0.1}, "model.tau=-0.1"),
        ({"alpha_range": [0.5, 0.5]}, "model.alpha_range="),
        ({"alpha_range": [1.0, 0.1]}, "model.alpha_range="),
        ({"noise_weights": [0.2]}, "model.noise_weights="),
        ({"top_k": 0}, "model.top_k=0"),
    ],
)
def test_numbers_that_make_no_curriculum_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        duo(**options)


def test_a_share_of_a_run_without_an_end_is_refused() -> None:
    module = started(duo(curriculum=0.5), steps=float("inf"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"model\.curriculum=0\.5 is a share of a run without an end"):
        module.corrupt(canvas(documents(2)))


def test_states_are_what_text_is_made_of() -> None:
    """No mask, no padding, no row that no token belongs to; an unknown token in an answer is left alone."""
    process = UniformDiffusion(VOCAB, duo().process.schedule)
    assert VOCAB.mask_id not in process.states and VOCAB.pad_id not in process.states
    assert VOCAB.eos_id in process.states and int(process.states.max()) < VOCAB.length
    odd = canvas([([5, 6, VOCAB.mask_id, 7], 1)] * 50)
    batch = started(duo(), 99).corrupt(odd)
    assert (batch.x_t[:, 2] == VOCAB.mask_id).all() and not batch.asked[:, 2].any()
