"""Noise that belongs to the documents: the same wherever they stand, and as good as random everywhere else."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from dllm_lightning.noise import Cosine
from dllm_lightning.process import MaskedDiffusion, PerDocument, PerPlace, Random, Replace
from dllm_lightning.process.draws import _mix
from dllm_lightning.types import Canvas
from tests.laws.odds import SURPRISING, correlation, uniformity
from tests.laws.parts import HIDINGS, mixed_batch, row, seeded, stack, vocabulary

A, B, C = [5, 3, 5, 1, 2], [4, 4, 4], [0, 2, 6, 6, 1, 3, 2]
VOCAB = vocabulary(11)


def layouts() -> dict[str, tuple[Canvas, list[tuple[int, int]]]]:
    """The documents A, B and C as batches, with the (row, first slot) of each."""
    return {
        "one row each": (stack(*(row(d, length=16) for d in (A, B, C))), [(0, 0), (1, 0), (2, 0)]),
        "padded left": (stack(*(row(d, length=16, left=9) for d in (A, B, C))), [(0, 9), (1, 9), (2, 9)]),
        "packed": (row(A, B, C, length=16), [(0, 0), (0, 5), (0, 8)]),
        "packed tightly": (row(A, B, C, length=15), [(0, 0), (0, 5), (0, 8)]),
        "packed the other way": (row(C, A, B, length=20, left=3), [(0, 10), (0, 15), (0, 3)]),
        "among others": (
            stack(row([1, 1], C, B, length=15), row([6, 2, 2], [7], A, length=15), row([3] * 15, length=15)),
            [(1, 4), (0, 9), (0, 2)],
        ),
    }


def in_documents(field: Tensor, places: list[tuple[int, int]]) -> list[list[float]]:
    return [field[i, start : start + len(d)].tolist() for (i, start), d in zip(places, (A, B, C), strict=True)]


@pytest.mark.parametrize("layout", list(layouts())[1:])
@pytest.mark.parametrize("draw", [0, 2])
def test_noise_follows_a_document_into_any_batch(layout: str, draw: int) -> None:
    seen = []
    for canvas, places in (layouts()["one row each"], layouts()[layout]):
        draws = PerDocument(seed=3, draw=draw, draws=4)
        fields = (draws.times(canvas), draws.uniform(canvas), draws.uniform(canvas))
        seen.append([in_documents(field, places) for field in fields])
    assert seen[0] == seen[1]


@pytest.mark.parametrize("layout", list(layouts())[1:])
def test_every_corruption_follows_a_document_into_any_batch(layout: str) -> None:
    for hiding, replace in itertools.product(HIDINGS, (Replace(), Replace(0.8, 0.1, 0.1))):
        process, seen = MaskedDiffusion(VOCAB, Cosine(), hiding, replace), []
        for canvas, places in (layouts()["one row each"], layouts()[layout]):
            draws = PerDocument(seed=1)
            noised = process.corrupt(canvas, draws.times(canvas), draws)
            seen.append([in_documents(field, places) for field in (noised.x_t, noised.asked, noised.t)])
        assert seen[0] == seen[1]


def test_the_same_seed_gives_the_same_noise_and_another_another() -> None:
    canvas = mixed_batch(VOCAB, seeded(0))
    again, other, later = PerDocument(seed=7), PerDocument(seed=8), PerDocument(seed=7, draw=1, draws=2)
    first = PerDocument(seed=7).uniform(canvas)
    assert torch.equal(first, again.uniform(canvas))
    for different in (other.uniform(canvas), later.uniform(canvas), again.uniform(canvas)):
        assert (first != different)[canvas.segment > 0].float().mean() > 0.99
    assert not torch.equal(PerDocument(seed=7).times(canvas), PerDocument(seed=8).times(canvas))


def test_noise_does_not_touch_the_generators_of_others() -> None:
    before = torch.random.get_rng_state()
    PerDocument(seed=0).uniform(mixed_batch(VOCAB, seeded(0)))
    assert torch.equal(before, torch.random.get_rng_state())


def documents(kind: str, count: int, length: int = 12) -> Canvas:
    """One document a row: random ones, ones that differ in their first id alone, or one in many orders."""
    ids = torch.randint(0, 9, (count, length), generator=seeded(5))
    if kind == "alike":
        ids = ids[:1].repeat(count, 1)
        ids[:, 0] = torch.arange(count)
    if kind == "reordered":
        ids = torch.rand(count, length, generator=seeded(5)).argsort(dim=1)
    return Canvas(ids, torch.ones_like(ids, dtype=torch.bool), torch.ones_like(ids))


@pytest.mark.parametrize("kind", ["unlike", "alike", "reordered"])
def test_noise_is_uniform_in_every_place(kind: str) -> None:
    canvas = documents(kind, 3000)
    noise = PerDocument(seed=0).uniform(canvas)
    assert ((noise >= 0) & (noise < 1)).all()
    assert uniformity(noise) < 2.3
    assert all(uniformity(noise[:, place]) < 2.3 for place in range(12))
    assert uniformity(PerDocument(seed=0).times(canvas)[:, 0]) < 2.3


@pytest.mark.parametrize("kind", ["unlike", "alike", "reordered"])
def test_noise_of_draws_calls_seeds_places_and_documents_is_unrelated(kind: str) -> None:
    canvas = documents(kind, 3000)
    draws, other = PerDocument(seed=0, draws=2), PerDocument(seed=0, draw=1, draws=2)
    noise = draws.uniform(canvas)
    related = {
        "call": (noise, draws.uniform(canvas)),
        "draw": (noise, other.uniform(canvas)),
        "seed": (noise, PerDocument(seed=1).uniform(canvas)),
        "place": (noise[:, 1:], noise[:, :-1]),
        "document": (noise[1:], noise[:-1]),
        "time": (noise, draws.times(canvas)),
        "time of a seed": (draws.times(canvas)[:, 0], PerDocument(seed=1).times(canvas)[:, 0]),
        "time of a draw": (draws.times(canvas)[:, 0], other.times(canvas)[:, 0]),
    }
    for name, (one, another) in related.items():
        assert abs(correlation(one, another)) < SURPRISING, name
        assert abs(correlation((one - 0.5).abs(), (another - 0.5).abs())) < SURPRISING, name


def test_the_draws_of_a_document_visit_each_stratum_of_time_once() -> None:
    canvas = documents("unlike", 200)
    times = torch.stack([PerDocument(seed=2, draw=draw, draws=8).times(canvas)[:, 0] for draw in range(8)], dim=1)
    assert ((times > 0) & (times <= 1)).all()
    assert torch.equal((times.double() * 8 - 1e-6).floor(), torch.arange(8.0).double().expand(200, 8))


def test_no_time_is_zero_where_a_bound_would_weigh_infinitely(monkeypatch: pytest.MonkeyPatch) -> None:
    canvas = documents("unlike", 3)
    monkeypatch.setattr("dllm_lightning.process.draws._fraction", lambda bits: torch.zeros_like(bits).float())
    assert (PerDocument(seed=0).times(canvas) == 1).all()
    assert (PerDocument(seed=0, draw=1, draws=4).times(canvas) == 0.5).all()


def test_a_time_is_constant_within_a_document() -> None:
    canvas = mixed_batch(VOCAB, seeded(2))
    times = PerDocument(seed=2).times(canvas)
    same = (canvas.segment[:, 1:] == canvas.segment[:, :-1]) & (canvas.segment[:, 1:] > 0)
    assert (times[:, 1:] == times[:, :-1])[same].all()


def test_a_draw_beyond_the_last_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no draw=4 among draws=4: they count from 0 to 3"):
        PerDocument(seed=0, draw=4, draws=4)


def test_the_hash_is_splitmix64() -> None:
    """The first outputs of the generator started at 0, as its authors publish them."""
    golden = 0x9E3779B97F4A7C15
    states = [(golden * k) % 2**64 for k in range(3)]
    signed = torch.tensor([state - 2**64 if state >= 2**63 else state for state in states])
    written = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [value % 2**64 for value in _mix(signed).tolist()] == written


def strata(times: Tensor) -> list[int]:
    """Which of n equal parts of (0, 1] each of n times lies in, sorted; float32 may round one onto its upper edge."""
    return (times.double() * times.numel() - 1e-5).floor().long().sort().values.tolist()


def constant_in_each_document(times: Tensor, canvas: Canvas) -> bool:
    same = (canvas.segment[:, 1:] == canvas.segment[:, :-1]) & (canvas.segment[:, 1:] > 0)
    return bool((times[:, 1:] == times[:, :-1])[same].all())


@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_random_times_fall_one_into_each_stratum(n: int) -> None:
    times = Random(seeded(0)).times(stack(*[row(A, length=6)] * n))[:, 0]
    assert times.dtype == torch.float32 and (times > 0).all() and (times <= 1).all()
    assert strata(times) == list(range(n))


def test_random_times_are_one_per_document() -> None:
    canvas = mixed_batch(VOCAB, seeded(3))
    times = Random(seeded(0)).times(canvas)
    assert strata(times[canvas.heads()]) == list(range(int(canvas.heads().sum())))
    assert constant_in_each_document(times, canvas)


SHARES = [[8], [4, 4], [2, 2, 2, 2], [1] * 8, [3, 5]]
"""Ways to deal out a global batch of eight rows."""


def dealt(canvas: Canvas, share: list[int], seed: int = 5, step: int = 9) -> list[tuple[Tensor, ...]]:
    """What each part of a global batch draws: times, and twice numbers per slot."""
    found, first = [], 0
    for count in share:
        draws = PerPlace(seed, step, first, sum(share))
        part = Canvas(*(field[first : first + count] for field in canvas))
        found.append((draws.times(part), draws.uniform(part), draws.uniform(part)))
        first += count
    return found


@pytest.mark.parametrize("share", SHARES[1:], ids=str)
def test_the_noise_of_a_global_batch_is_the_same_however_its_rows_are_dealt_out(share: list[int]) -> None:
    canvas = stack(*(row(A, B, length=16) if number % 2 else row(C, length=16) for number in range(8)))
    whole = dealt(canvas, SHARES[0])[0]
    parts = [torch.cat(fields) for fields in zip(*dealt(canvas, share), strict=True)]
    assert all(torch.equal(*pair) for pair in zip(whole, parts, strict=True))


def test_noise_of_a_place_ends_with_its_step_and_its_seed() -> None:
    canvas = stack(*[row(A, length=5)] * 8)
    drawn = [dealt(canvas, [8], *key)[0] for key in ((5, 9), (5, 10), (6, 9))]
    for one, another in itertools.combinations(drawn, 2):
        assert not any(torch.equal(*pair) for pair in zip(one, another, strict=True))
    assert not torch.equal(drawn[0][1], drawn[0][2])


def test_padding_to_the_right_moves_no_noise() -> None:
    """A batch that is padded to its own longest row draws as the global batch does."""
    short, long = (stack(*[row(A, length=length)] * 4) for length in (5, 12))
    for one, another in zip(dealt(short, [4])[0], dealt(long, [4])[0], strict=True):
        assert torch.equal(one, another[:, :5])


def test_times_of_places_are_stratified_over_the_rows_and_spaced_within_each() -> None:
    canvas = stack(*[row(A, B, length=8)] * 8)
    times = PerPlace(0, 3, 0, 8).times(canvas)
    assert strata(times[:, 0]) == list(range(8))
    assert constant_in_each_document(times, canvas)
    gap = (times[:, 0] - times[:, 5]).abs()
    assert ((gap - 0.5).abs() < 1e-6).all()


def test_the_numbers_of_a_place_are_uniform_over_the_steps_and_independent() -> None:
    canvas = stack(*[row(A, B, length=8)] * 4)
    drawn = [
        (draws.times(canvas), draws.uniform(canvas)) for step in range(1500) for draws in [PerPlace(1, step, 2, 8)]
    ]
    times, noise = (torch.stack(field) for field in zip(*drawn, strict=True))
    for place in ((0, 0), (0, 5), (3, 7)):
        assert uniformity(times[:, *place]) < 2.3 and uniformity(noise[:, *place]) < 2.3
    pairs = [(noise[:, 0, 0], noise[:, 0, 1]), (noise[:, 0, 0], noise[:, 1, 0]), (noise[:, 0, 0], times[:, 0, 0])]
    assert all(abs(correlation(*pair)) < SURPRISING for pair in pairs)


def test_many_numbers_for_some_slots_are_those_that_calls_for_all_would_have_given() -> None:
    canvas = mixed_batch(VOCAB, seeded(0))
    at = canvas.editable.flatten().nonzero().squeeze(1)
    together, in_turn = PerPlace(5, 9, 2, 40), PerPlace(5, 9, 2, 40)
    for count in (1, 3):
        expected = torch.stack([in_turn.uniform(canvas).flatten()[at] for _ in range(count)])
        assert torch.equal(together.uniforms(canvas, at, count), expected)
    assert torch.equal(together.uniform(canvas), in_turn.uniform(canvas))


def test_rows_beyond_the_global_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="2 rows from row 3 on is not within 4 rows"):
        PerPlace(0, 0, 3, 4).times(stack(*[row(A, length=5)] * 2))


def test_random_draws_never_repeat_and_come_again_from_their_seed() -> None:
    canvas = mixed_batch(VOCAB, seeded(0))
    draws, again = Random(seeded(1)), Random(seeded(1))
    first, second = draws.uniform(canvas), draws.uniform(canvas)
    assert torch.equal(again.uniform(canvas), first) and torch.equal(again.uniform(canvas), second)
    for one, another in itertools.combinations((first, second, Random(seeded(2)).uniform(canvas)), 2):
        assert not torch.equal(one, another)
