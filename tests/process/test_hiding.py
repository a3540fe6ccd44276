"""Which slots are hidden, how many, and what they show: on packed rows with prompts of every length."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from dllm_lightning.noise import Cosine, LogLinear, NoiseSchedule
from dllm_lightning.process import Bernoulli, FloorCount, Hiding, MaskedDiffusion, Random, Replace, UniformCount
from dllm_lightning.types import Canvas, Corrupted
from tests.laws.odds import SURPRISING, chi_square
from tests.laws.parts import BOUNDS, HIDINGS, MIXTURES, mixed_batch, row, seeded, stack, vocabulary

VOCAB = vocabulary(11, first_noise=3)


def counts(noised: Corrupted) -> dict[tuple[int, int], tuple[int, int, float]]:
    """For every document (row, number): its answer slots, how many are hidden, and its time."""
    found = {}
    for i, segments in enumerate(noised.clean.segment):
        for number in set(segments[segments > 0].tolist()):
            inside = segments == number
            slots, hidden = noised.clean.editable[i, inside], noised.asked[i, inside]
            assert not (hidden & ~slots).any()
            found[i, number] = int(slots.sum()), int(hidden.sum()), noised.t[i, inside].unique().item()
    return found


def corrupted(process: MaskedDiffusion, canvas: Canvas, seed: int) -> Corrupted:
    generator = seeded(seed)
    return process.corrupt(canvas, Random(generator).times(canvas), Random(generator))


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
@pytest.mark.parametrize("replace", MIXTURES, ids=str)
def test_floor_count_hides_exactly_the_rounded_down_share_of_each_document(
    bounds: dict[str, float], replace: Replace
) -> None:
    schedule = LogLinear(**bounds)
    process = MaskedDiffusion(VOCAB, schedule, FloorCount(), replace)
    for seed in range(6):
        for slots, hidden, t in counts(corrupted(process, mixed_batch(VOCAB, seeded(seed)), seed)).values():
            assert hidden == math.floor(schedule.mask_ratio(torch.tensor([t]).double()).item() * slots + 5e-10)


@pytest.mark.parametrize("replace", MIXTURES, ids=str)
def test_uniform_count_hides_exactly_as_many_as_its_clock_says(replace: Replace) -> None:
    """At least one slot of every answer, and the time l/n comes back with them."""
    process = MaskedDiffusion(VOCAB, Cosine(), UniformCount(), replace)
    for seed in range(6):
        canvas = mixed_batch(VOCAB, seeded(seed))
        generator = seeded(seed)
        drawn = Random(generator).times(canvas)
        noised = process.corrupt(canvas, drawn, Random(generator))
        for (i, number), (slots, hidden, t) in counts(noised).items():
            asked_for = drawn[i][canvas.segment[i] == number][0].item()
            assert hidden == math.ceil(asked_for * slots)
            assert t == pytest.approx(hidden / max(slots, 1), abs=1e-7)


@pytest.mark.parametrize("hiding", [FloorCount(), UniformCount()], ids=str)
@pytest.mark.parametrize(("percent", "slots"), [(29, 100), (7, 100), (14, 50), (57, 100), (15, 20), (35, 60)])
def test_a_share_that_is_a_whole_count_hides_that_count(hiding: Hiding, percent: int, slots: int) -> None:
    """0.29 x 100 is a little below 29 in binary, 0.07 x 100 a little above 7."""
    fixed = LogLinear(min_ratio=percent / 100, max_ratio=percent / 100)
    canvas = row(list(range(3)) * 40, length=120)
    canvas = canvas._replace(editable=torch.arange(120)[None] < slots)
    noised = corrupted(MaskedDiffusion(VOCAB, fixed, hiding), canvas, 0)
    assert int(noised.asked.sum()) == percent * slots // 100


def test_the_original_recipe_at_a_ratio_of_15_percent() -> None:
    process = MaskedDiffusion(VOCAB, LogLinear(min_ratio=0.15, max_ratio=0.15), FloorCount())
    canvas = row(list(range(3)) * 2, [5] * 7, [4] * 30, length=50)
    found = counts(corrupted(process, canvas, 0))
    assert [hidden for _, hidden, _ in found.values()] == [0, 1, 4]


@pytest.mark.parametrize("schedule", [LogLinear(), Cosine()], ids=str)
def test_the_counts_of_uniform_count_are_uniform(schedule: NoiseSchedule) -> None:
    """Under any schedule, in every document of a packed row."""
    canvas = stack(*[row([1] * 7, [2] * 5, length=12)] * 6000)
    process = MaskedDiffusion(VOCAB, schedule, UniformCount())
    noised = corrupted(process, canvas, 0)
    for part, slots in ((noised.asked[:, :7], 7), (noised.asked[:, 7:], 5)):
        found = torch.bincount(part.sum(1), minlength=slots + 1)
        expected = torch.full((slots + 1,), 6000 / slots)
        expected[0] = 0
        assert chi_square(found, expected) < SURPRISING


@pytest.mark.parametrize(("hiding", "count"), [(UniformCount(), 3), (FloorCount(), 2)], ids=str)
def test_every_subset_of_a_size_is_equally_likely(hiding: Hiding, count: int) -> None:
    """With fixed slots among the editable ones, and a neighbour in the row."""
    canvas = stack(*[row([1] * 6, [2] * 3, length=10)] * 8000)
    canvas.editable[:, 2] = False
    t = torch.where(canvas.segment > 0, 0.5, 0.0)
    noised = MaskedDiffusion(VOCAB, LogLinear(), hiding).corrupt(canvas, t, Random(seeded(0)))
    places = [0, 1, 3, 4, 5]
    codes = (noised.asked[:, places].long() << torch.arange(5)).sum(1)
    expected = torch.zeros(32)
    for subset in itertools.combinations(range(5), count):
        expected[sum(1 << place for place in subset)] = 8000 / math.comb(5, count)
    assert chi_square(torch.bincount(codes, minlength=32), expected) < SURPRISING


@pytest.mark.parametrize("hiding", HIDINGS, ids=str)
def test_documents_of_a_row_are_hidden_independently(hiding: Hiding) -> None:
    canvas = stack(*[row([1] * 2, [2] * 2, length=5)] * 8000)
    t = torch.where(canvas.segment > 0, 0.5, 0.0)
    asked = MaskedDiffusion(VOCAB, LogLinear(), hiding).corrupt(canvas, t, Random(seeded(1))).asked
    first, second = asked[:, 0].long() * 2 + asked[:, 1], asked[:, 2].long() * 2 + asked[:, 3]
    joint = torch.bincount(first * 4 + second, minlength=16).reshape(4, 4).double()
    expected = joint.sum(1, keepdim=True) * joint.sum(0) / joint.sum()
    possible = expected > 0
    assert chi_square(joint[possible], expected[possible]) < SURPRISING


@pytest.mark.parametrize("hiding", HIDINGS, ids=str)
@pytest.mark.parametrize("replace", MIXTURES, ids=str)
def test_hidden_slots_show_masks_random_and_kept_tokens_in_their_shares(hiding: Hiding, replace: Replace) -> None:
    clean, noise = 1, VOCAB.noise_ids
    canvas = stack(*[row([clean] * 20, length=20)] * 1000)
    noised = MaskedDiffusion(VOCAB, LogLinear(), hiding, replace).corrupt(
        canvas, torch.full((1000, 20), 0.6), Random(seeded(2))
    )
    shown = torch.bincount(noised.x_t[noised.asked], minlength=VOCAB.size)
    shares = torch.zeros(VOCAB.size)
    shares[VOCAB.mask_id] = replace.mask
    shares[clean] = replace.keep
    shares[noise] = replace.random / len(noise)
    assert clean not in noise
    assert chi_square(shown, shares * shown.sum()) < SURPRISING
    assert (noised.x_t == clean)[~noised.asked].all()


def test_random_tokens_include_the_clean_one() -> None:
    """As in BERT: a random token may happen to be right."""
    canvas = stack(*[row([5] * 20, length=20)] * 200)
    process = MaskedDiffusion(VOCAB, LogLinear(), Bernoulli(), Replace(0.0, 1.0, 0.0))
    noised = process.corrupt(canvas, torch.ones(200, 20), Random(seeded(0)))
    expected = torch.zeros(VOCAB.size)
    expected[VOCAB.noise_ids] = 4000 / len(VOCAB.noise_ids)
    assert chi_square(torch.bincount(noised.x_t.flatten(), minlength=VOCAB.size), expected) < SURPRISING


@pytest.mark.parametrize("hiding", HIDINGS, ids=str)
def test_answers_of_no_slots_hide_nothing(hiding: Hiding) -> None:
    canvas = row([1, 2, 3], [4], length=8, prompt=9)
    noised = corrupted(MaskedDiffusion(VOCAB, LogLinear(), hiding), canvas, 0)
    assert not noised.asked.any() and torch.equal(noised.x_t, canvas.ids)
    assert torch.isfinite(noised.t).all()


@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.2), (1.1, -0.1, 0.0), (0.0, 0.0, 0.0)])
def test_shares_that_do_not_sum_to_one_are_refused(shares: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"process\.replace has mask=.*random=.*keep=.*must sum to 1"):
        Replace(*shares)
