"""What corruption does to text is exactly the law that its name promises, and nothing outside the answer moves."""

from __future__ import annotations

import math

import pytest
import torch

from dllm_lightning.process import Bernoulli, FloorCount, MaskedDiffusion, PerDocument, Random
from tests.laws.enumeration import codes, enumerate_corruptions
from tests.laws.odds import SURPRISING, chi_square
from tests.laws.parts import HIDINGS, MIXTURES, SCHEDULES, masked_processes, mixed_batch, row, seeded, stack, vocabulary

SMALL, VOCAB = vocabulary(5), vocabulary(11, first_noise=2)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("hiding", HIDINGS, ids=str)
def test_corruptions_come_with_the_probabilities_of_the_enumeration(schedule, hiding) -> None:
    """The whole joint law of (asked, x_t), in a chi-square test: rates, counts, subsets, mixtures and independence."""
    x0, n, copies = (0, 2, 1), 3, 6000
    canvas = stack(*[row(list(x0), length=n)] * copies)
    for number, replace in enumerate(MIXTURES):
        process = MaskedDiffusion(SMALL, schedule, hiding, replace)
        t = 0.37
        noised = process.corrupt(canvas, torch.full((copies, n), t), Random(seeded(number)))
        law = enumerate_corruptions(x0, t, schedule, hiding, replace, SMALL)
        assert law.probability.sum().item() == pytest.approx(1)
        expected = torch.zeros(2**n * 4**n, dtype=torch.float64)
        expected[codes(law.asked.long(), 2) * 4**n + codes(law.x_t, 4)] = law.probability * copies
        found = torch.bincount(codes(noised.asked.long(), 2) * 4**n + codes(noised.x_t, 4), minlength=expected.numel())
        assert chi_square(found, expected) < SURPRISING, replace
        assert torch.allclose(noised.t.double(), law.clock[0])


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_slots_are_flipped_at_the_mask_ratio(schedule) -> None:
    """In long packed rows with a time per document, and at every level of noise."""
    generator = seeded(0)
    canvas = stack(*[row([1] * 40, [2] * 20, [3] * 3, length=64, prompt=1)] * 400)
    process = MaskedDiffusion(VOCAB, schedule)
    t = Random(generator).times(canvas)
    noised = process.corrupt(canvas, t, Random(generator))
    ratio = schedule.mask_ratio(t.double())
    for low in (0.0, 0.25, 0.5, 0.75):
        band = canvas.editable & (t > low) & (t <= low + 0.25)
        expected, variance = ratio[band].sum(), (ratio * (1 - ratio))[band].sum()
        assert abs(noised.asked[band].sum() - expected) <= SURPRISING * variance.sqrt() + 1e-9
    assert torch.equal(noised.asked, noised.x_t == VOCAB.mask_id)


def test_what_is_not_editable_comes_back_bit_for_bit() -> None:
    """Prompts, packed neighbours, padding left and right, under every schedule, rule and mixture."""
    canvas = mixed_batch(VOCAB, seeded(1), rows=8)
    before = [field.clone() for field in canvas]
    for number, process in enumerate(masked_processes(VOCAB)):
        draws = PerDocument(seed=number) if number % 2 else Random(seeded(number))
        noised = process.corrupt(canvas, Random(seeded(number)).times(canvas), draws)
        assert torch.equal(noised.x_t[~canvas.editable], canvas.ids[~canvas.editable])
        assert torch.equal(noised.x_t[~noised.asked], canvas.ids[~noised.asked])
        assert not (noised.asked & ~canvas.editable).any()
        assert noised.clean is canvas
    assert all(torch.equal(field, kept) for field, kept in zip(canvas, before, strict=True))


def test_the_prior_is_what_corruption_ends_in() -> None:
    """At t = 1 every complete masked diffusion has hidden every slot, or all but what alpha(1) leaves."""
    canvas = mixed_batch(VOCAB, seeded(1), rows=8)
    for process in masked_processes(VOCAB):
        if process.why_no_bound is None:
            t = torch.where(canvas.segment > 0, 1.0, 0.0)
            noised = process.corrupt(canvas, t, Random(seeded(0)))
            left = (noised.x_t != process.prior(canvas)).sum().item()
            assert left == 0 or left <= math.ceil(10 * process.schedule.alpha(torch.tensor([1.0])).item() * t.numel())


def test_the_same_draws_make_the_same_corruption() -> None:
    canvas = mixed_batch(VOCAB, seeded(1))
    t = torch.where(canvas.segment > 0, 0.4, 0.0)
    for process in masked_processes(VOCAB):
        one, two, other = (process.corrupt(canvas, t, Random(seeded(seed))) for seed in (0, 0, 1))
        assert torch.equal(one.x_t, two.x_t) and torch.equal(one.asked, two.asked)
        if isinstance(process.hiding, Bernoulli | FloorCount) and process.schedule.mask_ratio(t).max() > 0.1:
            assert not torch.equal(one.asked, other.asked)
