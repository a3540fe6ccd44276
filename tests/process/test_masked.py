"""What masked diffusion answers beyond the laws: how logits are read, what is asked, and when there is no bound."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dllm_lightning.noise import Cosine, Geometric, LogLinear, NoiseSchedule
from dllm_lightning.process import Bernoulli, FloorCount, MaskedDiffusion, NoBound, Random, Replace, UniformCount
from dllm_lightning.types import Corrupted, Slots
from tests.laws.parts import COMPLETE, masked_processes, row, seeded, stack, vocabulary

VOCAB = vocabulary(11)
PLAIN = MaskedDiffusion(VOCAB, LogLinear())


def masked_slots(t: Tensor) -> Slots:
    """N masked slots at the given times, of clean tokens 0, 1, 2 ..."""
    n = t.numel()
    return Slots(torch.arange(n) % VOCAB.mask_id, torch.full((n,), VOCAB.mask_id), t, torch.arange(n))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
def test_beliefs_have_no_mass_on_the_mask_nor_on_rows_without_a_token(dtype: torch.dtype) -> None:
    logits = torch.randn(7, 11, generator=seeded(0)).to(dtype)
    logits[:, VOCAB.mask_id] = 50
    p_x0 = PLAIN.log_p_x0(logits, masked_slots(torch.full((7,), 0.5))).exp()
    assert (p_x0[:, VOCAB.mask_id] == 0).all() and (p_x0[:, VOCAB.length :] == 0).all()
    assert_close(p_x0.sum(-1), torch.ones(7, dtype=p_x0.dtype))
    assert_close(p_x0[:, :9], logits.to(p_x0.dtype)[:, :9].softmax(-1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_logits_are_read_in_float32(dtype: torch.dtype) -> None:
    logits, slots = torch.randn(7, 11, generator=seeded(0)).to(dtype), masked_slots(torch.full((7,), 0.5))
    beliefs = PLAIN.log_p_x0(logits, slots)
    assert beliefs.dtype == torch.float32
    assert torch.equal(beliefs, PLAIN.log_p_x0(logits.float(), slots))
    assert PLAIN.log_p_x0(logits.double(), slots).dtype == torch.float64


def test_reading_logits_leaves_them_as_they_are() -> None:
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        logits = torch.randn(5, 11, generator=seeded(0)).to(dtype)
        before = logits.clone()
        PLAIN.log_p_x0(logits, masked_slots(torch.full((5,), 0.5)))
        assert torch.equal(logits, before)


def test_the_gradient_of_a_belief_never_reaches_the_mask() -> None:
    logits = torch.randn(5, 11, generator=seeded(0), dtype=torch.float64).requires_grad_()
    slots = masked_slots(torch.full((5,), 0.5, dtype=torch.float64))
    PLAIN.nelbo(PLAIN.log_p_x0(logits, slots), slots).sum().backward()
    assert logits.grad is not None
    p_x0 = logits[:, :9].softmax(-1).detach()
    p_x0[torch.arange(5), slots.x0] -= 1
    assert_close(logits.grad[:, :9], 2 * p_x0)
    assert (logits.grad[:, 9:] == 0).all()


@pytest.mark.parametrize("schedule", COMPLETE, ids=str)
def test_the_bound_in_float32_is_the_bound_in_float64(schedule: NoiseSchedule) -> None:
    """From t = 1e-6, where the weight is a million, to the end."""
    t = torch.cat([torch.logspace(-6, -1, 40), torch.linspace(0.1, 1, 40)])
    logits = 4 * torch.randn(80, 11, generator=seeded(0))
    process = MaskedDiffusion(VOCAB, schedule)
    coarse, fine = (
        process.nelbo(process.log_p_x0(logits.to(dtype), masked_slots(t.to(dtype))), masked_slots(t.to(dtype)))
        for dtype in (torch.float32, torch.float64)
    )
    assert coarse.dtype == torch.float32 and torch.isfinite(coarse).all()
    assert_close(coarse.double(), fine, rtol=2e-5, atol=1e-5)


def test_what_is_not_masked_costs_nothing() -> None:
    slots = masked_slots(torch.tensor([0.25, 0.25, 0.0]))._replace(x_t=torch.tensor([9, 1, 1]))
    log_p_x0 = torch.full((3, 11), -2.0).requires_grad_()
    nelbo = PLAIN.nelbo(log_p_x0, slots)
    assert nelbo.tolist() == [8.0, 0.0, 0.0]


def test_the_prior_is_all_masks_on_the_answer() -> None:
    canvas = row([1, 2, 3, 4], [5, 6, 7], length=9, prompt=2, left=1)
    assert PLAIN.prior(canvas).tolist() == [[0, 1, 2, 9, 9, 5, 6, 9, 0]]


def test_masks_in_the_answer_are_in_question_and_others_are_not() -> None:
    x_t = torch.tensor([[9, 9, 3, 9]])
    assert PLAIN.asks(x_t, torch.tensor([[False, True, True, True]])).tolist() == [[False, True, False, True]]


def test_hidden_slots_are_asked_about_even_where_they_look_clean() -> None:
    process = MaskedDiffusion(VOCAB, LogLinear(min_ratio=0.5, max_ratio=0.5), FloorCount(), Replace(0.0, 0.0, 1.0))
    canvas = row([1, 2, 3, 4], length=4)
    noised = process.corrupt(canvas, torch.full((1, 4), 0.5), Random(seeded(0)))
    assert torch.equal(noised.x_t, canvas.ids)
    assert int(noised.asked.sum()) == 2
    assert noised.slots().at.numel() == 2


def test_the_slots_of_a_batch_are_its_asked_ones_in_row_order() -> None:
    canvas = stack(row([1, 2, 3], length=3), row([4, 5, 6], length=3))
    x_t = torch.tensor([[9, 2, 9], [4, 9, 6]])
    t = torch.tensor([[0.2] * 3, [0.7] * 3])
    slots = Corrupted(canvas, x_t, t, x_t == 9).slots()
    assert slots.x0.tolist() == [1, 3, 5] and slots.at.tolist() == [0, 2, 4]
    assert slots.x_t.tolist() == [9, 9, 9]
    assert_close(slots.t, torch.tensor([0.2, 0.2, 0.7]))


def test_in_a_batch_of_padding_alone_nothing_is_hidden() -> None:
    canvas = row(length=4)
    for process in masked_processes(VOCAB)[::15]:
        assert not process.corrupt(canvas, torch.zeros(1, 4), Random(seeded(0))).asked.any()


BOUNDLESS = [
    (MaskedDiffusion(VOCAB, LogLinear(min_ratio=0.15)), r"mask ratio runs from 0\.15 to 1 and not from 0 to 1"),
    (MaskedDiffusion(VOCAB, Cosine(max_ratio=0.5)), r"mask ratio runs from 0 to 0\.5 and not from 0 to 1"),
    (MaskedDiffusion(VOCAB, LogLinear(0.15, 0.15)), r"mask ratio runs from 0\.15 to 0\.15"),
    (MaskedDiffusion(VOCAB, Geometric(sigma_max=1.0)), r"mask ratio runs from .* to 0\.6321"),
    (MaskedDiffusion(VOCAB, LogLinear(), FloorCount()), "rounded-down count"),
    (MaskedDiffusion(VOCAB, LogLinear(min_ratio=0.1), UniformCount()), r"counts are bounded between 0\.1 and 1\.0"),
    (
        MaskedDiffusion(VOCAB, LogLinear(), replace=Replace(0.8, 0.1, 0.1)),
        r"do not all show a mask \(80% masks, 10% random, 10% kept\)",
    ),
]


@pytest.mark.parametrize(("process", "reason"), BOUNDLESS, ids=range(len(BOUNDLESS)))
def test_a_corruption_that_is_no_diffusion_says_why_it_has_no_bound(process: MaskedDiffusion, reason: str) -> None:
    slots = masked_slots(torch.full((3,), 0.5))
    with pytest.raises(NoBound, match=f"has no likelihood bound, because .*{reason}"):
        process.nelbo(torch.zeros(3, 11), slots)
    assert issubclass(NoBound, ValueError)


def test_the_diffusions_of_the_papers_have_a_bound() -> None:
    for schedule in COMPLETE:
        assert MaskedDiffusion(VOCAB, schedule).why_no_bound is None
        assert MaskedDiffusion(VOCAB, schedule, UniformCount()).why_no_bound is None or schedule.max_ratio < 1


def test_behind_every_corruption_stands_a_true_diffusion() -> None:
    for process in masked_processes(VOCAB):
        plain = process.plain
        assert plain.why_no_bound is None and plain.schedule.complete
        assert plain.plain is plain
        assert plain.vocab is process.vocab
        assert (plain is process) == (process.why_no_bound is None and process.schedule.complete)
        if process.schedule.unbounded().complete:
            assert type(plain.schedule) is type(process.schedule)


def test_the_plain_process_of_the_original_recipe_is_mdlm() -> None:
    original = MaskedDiffusion(VOCAB, LogLinear(0.15, 0.99), FloorCount(), Replace(0.8, 0.1, 0.1))
    assert original.plain == MaskedDiffusion(VOCAB, LogLinear(), Bernoulli(), Replace())


def test_the_mask_ratio_of_a_slot_is_the_share_that_was_hidden() -> None:
    """The clock of exact counts reads the share itself; the others read the schedule."""
    t = torch.tensor([0.25, 0.5])
    assert torch.equal(MaskedDiffusion(VOCAB, Cosine(), UniformCount()).mask_ratio(t), t)
    for hiding in (Bernoulli(), FloorCount()):
        process = MaskedDiffusion(VOCAB, Cosine(0.1, 0.9), hiding)
        assert torch.equal(process.mask_ratio(t), process.schedule.mask_ratio(t))
