"""Noise that belongs to the documents: the same wherever they stand, and as good as random everywhere else."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from dllm_lightning.noise import Cosine
from dllm_lightning.process import MaskedDiffusion, PerDocument, Random, Replace
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


def test_random_draws_never_repeat_and_come_again_from_their_seed() -> None:
    canvas = mixed_batch(VOCAB, seeded(0))
    draws, again = Random(seeded(1)), Random(seeded(1))
    first, second = draws.uniform(canvas), draws.uniform(canvas)
    assert torch.equal(again.uniform(canvas), first) and torch.equal(again.uniform(canvas), second)
    for one, another in itertools.combinations((first, second, Random(seeded(2)).uniform(canvas)), 2):
        assert not torch.equal(one, another)
