"""Soft tokens: few numbers drawn as if there were all of them, and the hard token that is truly their largest."""

from __future__ import annotations

import dataclasses
import itertools
import math
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dllm_lightning.noise import LogLinear
from dllm_lightning.process import Gaussian, PerPlace, Random, Relaxed, SoftCorruption, UniformDiffusion
from dllm_lightning.process.soft import Latents, all_latents, top_latents
from dllm_lightning.types import Canvas, Vocab
from tests.laws.odds import SURPRISING, chi_square, correlation, uniformity
from tests.laws.parts import mixed_batch, seeded

K = 50_368


def sparse(count: int, slots: int, k: int, seed: int = 0) -> tuple[Tensor, Latents]:
    """Random clean tokens, and the k largest of the others'."""
    random = seeded(seed)
    x = torch.randint(count, (slots,), generator=random)
    own, *rows = torch.rand(1 + 2 * k, slots, generator=random, dtype=torch.float64).clamp(min=1e-15)
    return x, top_latents(x, own, torch.stack(rows[:k]), torch.stack(rows[k:]), count)


def dense(count: int, slots: int, seed: int = 0) -> tuple[Tensor, Latents]:
    random = seeded(seed)
    x = torch.randint(count, (slots,), generator=random)
    return x, all_latents(x, torch.randn(slots, count, generator=random, dtype=torch.float64))


def level(latents: Latents, gamma: float) -> Tensor:
    return torch.full((len(latents.ranks),), gamma, dtype=torch.float64)


def same_mean(a: Tensor, b: Tensor) -> bool:
    """Within what chance allows two samples, and what float64 can tell."""
    error = math.sqrt(a.var().item() / len(a) + b.var().item() / len(b))
    return abs((a.mean() - b.mean()).item()) < SURPRISING * error + 1e-12


@cache
def corruption(states: int = 11, top_k: int | None = 3) -> SoftCorruption:
    """Over `states` ordinary tokens, of which one ends an answer; then [MASK], and a row that no token belongs to."""
    vocab = Vocab(states + 2, states + 1, mask_id=states, pad_id=0, eos_id=1, noise_ids=torch.arange(states))
    return SoftCorruption(UniformDiffusion(vocab, Relaxed(classes=states)), top_k)


def batch(rows: int = 6, length: int = 32, states: int = 11) -> tuple[Canvas, Tensor]:
    canvas = mixed_batch(corruption(states).process.vocab, seeded(1), rows, length)
    return canvas, Random(seeded(2)).times(canvas)


@pytest.mark.parametrize(("k", "slots"), [(2, 200_000), (8, 200_000), (64, 40_000)])
def test_a_token_survives_as_often_as_the_gaussian_says_however_many_are_drawn(k: int, slots: int) -> None:
    """The public code says that x survives whenever it is among the k drawn: .969, .989 and .998 in place of .945."""
    x, latents = sparse(K, slots, k)
    for gamma in (-3.55, -3.0, -2.5, -1.85):
        alpha = Gaussian(K).alpha(torch.tensor(gamma, dtype=torch.float64)).item()
        p = alpha + (1 - alpha) / K
        z = latents.hard(level(latents, gamma))
        assert abs((z == x).double().mean().item() - p) < SURPRISING * math.sqrt(p * (1 - p) / slots)
        away = (z - x)[z != x] % K  # from 1 to K - 1, and as likely to be any
        counts = torch.bincount((away - 1) * 64 // (K - 1), minlength=64)
        assert abs(chi_square(counts, len(away) / 64 * torch.ones(64))) < SURPRISING


@pytest.mark.parametrize("k", [2, 8])
def test_the_label_is_the_heaviest_token(k: int) -> None:
    _, latents = sparse(K, 20_000, k)
    for gamma, tau in itertools.product((-3.55, -2.5, -1.85), (1e-3, 0.03, 0.3)):
        weight, rest = latents.weights(level(latents, gamma), tau)
        heaviest = latents.ranks.gather(1, weight.argmax(1, keepdim=True)).squeeze(1)
        assert (heaviest == latents.hard(level(latents, gamma))).all()
        assert_close(weight.sum(1) + rest, torch.ones_like(rest))


@pytest.mark.parametrize("others", [1, 2, 9, 63, K - 1])
def test_what_is_drawn_is_the_largest_of_so_many_normals(others: int) -> None:
    """The largest of n uniforms, to the n-th power, is uniform, and so is each next one as a share of the one above."""
    k = min(others, 4)
    _, latents = sparse(others + 1, 40_000, k, seed=others)
    log_u = torch.special.log_ndtr(latents.normal)
    assert uniformity(log_u[:, 0].exp()) < 2.3
    above = torch.zeros(len(log_u), dtype=torch.float64)
    spacings = []
    for i in range(k):
        spacings.append(((others - i) * (log_u[:, 1 + i] - above)).exp())
        above = log_u[:, 1 + i]
        assert uniformity(spacings[-1]) < 2.3
    for a, b in itertools.combinations(spacings, 2):
        assert abs(correlation(a, b)) < SURPRISING


def test_owners_are_distinct_others_in_any_order() -> None:
    """Of 6 tokens, 3 of the 5 that are not x: each of the 60 orders, for each x, as often as any."""
    x, latents = sparse(6, 120_000, 3)
    assert (latents.ranks[:, 0] == x).all()
    assert all((latents.ranks[:, i] != latents.ranks[:, j]).all() for i, j in itertools.combinations(range(4), 2))
    code = latents.ranks @ torch.tensor([216, 36, 6, 1])
    seen = torch.bincount(code, minlength=6**4)
    possible = torch.zeros(6**4)
    for orders in itertools.permutations(range(6), 4):
        possible[torch.tensor(orders) @ torch.tensor([216, 36, 6, 1])] = 1
    assert abs(chi_square(seen, possible * len(x) / 360)) < SURPRISING


def test_owners_come_from_the_whole_of_a_large_vocabulary() -> None:
    x, latents = sparse(K, 30_000, 16)
    others = latents.ranks[:, 1:]
    assert others.min() >= 0 and others.max() < K and (others != x[:, None]).all()
    ordered = others.sort(1).values
    assert (ordered.diff(dim=1) > 0).all()
    counts = torch.bincount(((others - x[:, None]) % K - 1).flatten() * 500 // (K - 1), minlength=500)
    assert abs(chi_square(counts, others.numel() / 500 * torch.ones(500))) < SURPRISING


@pytest.mark.parametrize("tau", [1e-3, 0.03, 0.3, 2.0])
@pytest.mark.parametrize(("gamma", "k"), [(-3.0, 2), (-1.0, 8)])
def test_the_rest_is_what_the_hidden_ones_weigh_on_average(gamma: float, k: int, tau: float) -> None:
    """E[exp(y / tau) | y < c] by the trapezoid rule in place of its closed form."""
    _, latents = sparse(1000, 20, k)
    scale = torch.sigmoid(torch.tensor(gamma, dtype=torch.float64)).sqrt()
    shown = latents.at(level(latents, gamma))
    top = shown.amax(1, keepdim=True)
    q = latents.normal[:, -1:]
    y = q - torch.linspace(0, 1, 40_001, dtype=torch.float64) ** 2 * 14  # finer close to the edge, where it is steep
    law = torch.exp(-(y**2) / 2)
    mean = torch.trapezoid(torch.exp((scale * y - top) / tau) * law, y, dim=1) / torch.trapezoid(law, y, dim=1)
    hidden = latents.hidden * mean
    expected = hidden / (hidden + torch.exp((shown - top) / tau).sum(1))
    assert latents.hidden == 999 - k
    assert_close(latents.weights(level(latents, gamma), tau)[1], expected, rtol=1e-4, atol=1e-300)


@pytest.mark.parametrize(("count", "slots", "k"), [(64, 15_000, 8), (1000, 2_500, 8), (1000, 2_500, 40)])
def test_the_weights_have_the_moments_of_those_among_all_tokens(count: int, slots: int, k: int) -> None:
    """First and second moment of the token's own weight and of the largest, and the mean beyond the k largest others.

    (Only the mean: what is hidden enters by its mean, and spreads a little less than it would.)
    """
    few, every = sparse(count, slots, k, seed=1)[1], dense(count, slots, seed=2)[1]
    alpha = torch.tensor([0.9, 0.4, 0.1], dtype=torch.float64)
    for gamma, tau in zip(Gaussian(count).gamma(alpha).tolist() * 2, (0.02, 0.1, 0.4, 0.4, 0.02, 0.1), strict=True):
        weight, rest = few.weights(level(few, gamma), tau)
        among_all, none = every.weights(level(every, gamma), tau)
        beyond = 1 - among_all[:, 0] - among_all[:, 1:].topk(k).values.sum(1)
        assert not none.any()
        assert same_mean(rest, beyond)
        for power in (1, 2):
            assert same_mean(weight[:, 0] ** power, among_all[:, 0] ** power)
            assert same_mean(weight.amax(1) ** power, among_all.amax(1) ** power)


@pytest.mark.parametrize(("count", "k"), [(2, 1), (3, 2), (3, 8), (2, 64)])
def test_with_few_tokens_all_of_them_are_drawn(count: int, k: int) -> None:
    """Then both ways give the same law: the weights, sorted, and how often each token is the largest."""
    k = min(k, count - 1)
    few, every = sparse(count, 40_000, k, seed=1)[1], dense(count, 40_000, seed=2)[1]
    assert few.hidden == every.hidden == 0
    gamma = 0.3
    for tau in (0.1, 1.0):
        ours, rest = few.weights(level(few, gamma), tau)
        theirs, _ = every.weights(level(every, gamma), tau)
        assert not rest.any()
        by_rank = [w.gather(1, latents.ranks.argsort(1)) for w, latents in ((ours, few), (theirs, every))]
        for a, b in ((ours[:, 0], theirs[:, 0]), (ours.amin(1), theirs.amin(1)), (by_rank[0][:, 0], by_rank[1][:, 0])):
            assert same_mean(a, b) and same_mean(a**2, b**2)


@pytest.mark.parametrize("top_k", [1, 3, None])
def test_without_warmth_a_soft_token_is_the_hard_one(top_k: int | None) -> None:
    (canvas, t), soften = batch(), corruption(top_k=top_k)
    noised = soften.corrupt(canvas, t, Random(seeded(0)), tau=1e-10)
    assert noised.soft is not None
    weight, rest = noised.soft.weight, noised.soft.rest
    assert weight.dtype == rest.dtype == torch.float32
    assert (weight.sort(1).values == torch.tensor([0.0] * (weight.shape[1] - 1) + [1.0])).all() and not rest.any()
    hard = noised.soft.ids.gather(1, weight.argmax(1, keepdim=True)).squeeze(1)
    assert (hard == noised.x_t.flatten()[noised.soft.at]).all()


@pytest.mark.parametrize("top_k", [1, 4, None])
def test_no_temperature_makes_a_weight_that_is_no_number(top_k: int | None) -> None:
    (canvas, t), soften = batch(states=200), corruption(200, top_k)
    for tau in (1e-12, 1e-8, 1e-4, 1e-2, 0.1, 1.0, 10.0):
        soft = soften.corrupt(canvas, t, Random(seeded(0)), tau).soft
        assert soft is not None
        assert (soft.weight >= 0).all() and (soft.rest >= 0).all()
        assert_close(soft.weight.sum(1) + soft.rest, torch.ones(len(soft.at)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("edge", [0.0, 1 - 2.0**-24])
@pytest.mark.parametrize("top_k", [1, 4, None])
def test_the_outermost_of_uniform_numbers_are_no_infinities(
    top_k: int | None, edge: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    (canvas, _), soften, draws = batch(), corruption(top_k=top_k), Random()
    monkeypatch.setattr(Random, "uniform", lambda self, canvas: torch.full(canvas.ids.shape, edge))
    at = canvas.editable.flatten().nonzero().squeeze(1)[:5]
    assert soften.latents(canvas._replace(ids=canvas.ids.clamp(max=9)), at, draws).normal.isfinite().all()


@pytest.mark.parametrize("top_k", [2, None])
def test_only_states_in_editable_slots_become_soft_and_the_rest_of_the_row_comes_back(top_k: int | None) -> None:
    (canvas, t), soften = batch(), corruption(top_k=top_k)
    unknown = canvas.ids.clone()
    unknown[:, 5] = soften.process.vocab.mask_id  # no state: nothing that noise is made of
    canvas = canvas._replace(ids=unknown)
    noised = soften.corrupt(canvas, t, Random(seeded(0)), tau=0.1)
    assert noised.soft is not None
    asked = canvas.editable & (canvas.ids != soften.process.vocab.mask_id)
    assert (noised.asked == asked).all() and (noised.soft.at == asked.flatten().nonzero().squeeze(1)).all()
    assert (noised.x_t[~asked] == canvas.ids[~asked]).all() and (noised.x_t[asked] != canvas.ids[asked]).any()
    assert soften.process.is_state(noised.soft.ids).all()
    assert (noised.soft.ids[:, 0] == canvas.ids[asked]).all()
    assert noised.clean is canvas and noised.t is t


def test_hard_tokens_do_not_depend_on_the_temperature() -> None:
    """And at zero there are no soft ones."""
    (canvas, t), soften = batch(), corruption()
    noised = [soften.corrupt(canvas, t, Random(seeded(3)), tau) for tau in (0.0, 1e-3, 1.0)]
    assert noised[0].soft is None and noised[1].soft is not None
    assert all((other.x_t == noised[0].x_t).all() for other in noised)


@pytest.mark.parametrize("top_k", [1, 3, None])
def test_hard_tokens_are_as_noisy_as_the_time_says(top_k: int | None) -> None:
    (canvas, _), soften = batch(rows=300), corruption(top_k=top_k)
    for time in (0.0, 0.4, 1.0):
        t = torch.full(canvas.ids.shape, time)
        noised = soften.corrupt(canvas, t, Random(seeded(4)), tau=0.0)
        moved = (noised.x_t != canvas.ids)[noised.asked].double()
        p = soften.schedule.mask_ratio(torch.tensor(time, dtype=torch.float64)).item() * 10 / 11
        assert abs(moved.mean().item() - p) < SURPRISING * math.sqrt(p * (1 - p) / len(moved))


@pytest.mark.parametrize("top_k", [3, None])
def test_noise_that_belongs_to_places_softens_a_batch_as_it_softens_its_parts(top_k: int | None) -> None:
    (canvas, t), soften = batch(), corruption(top_k=top_k)
    whole = soften.corrupt(canvas, t, PerPlace(seed=1, step=5, first=0, rows=6), tau=0.1)
    parts = []
    for first, count in ((0, 2), (2, 3), (5, 1)):
        rows = slice(first, first + count)
        part = Canvas(*(field[rows] for field in canvas))
        parts.append(soften.corrupt(part, t[rows], PerPlace(seed=1, step=5, first=first, rows=6), tau=0.1))
    assert (torch.cat([part.x_t for part in parts]) == whole.x_t).all()
    for name in ("ids", "weight", "rest"):
        assert (torch.cat([getattr(part.soft, name) for part in parts]) == getattr(whole.soft, name)).all()


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that was made."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.size = max(self.size, *(leaf.numel() for leaf in tree_leaves(made) if isinstance(leaf, Tensor)), 0)
        return made


def test_nothing_is_as_large_as_slots_times_vocabulary() -> None:
    soften = corruption(K, top_k=8)
    canvas, t = batch(rows=8, length=1024, states=K)
    soften.corrupt(canvas, t, Random(seeded(0)), tau=0.1)  # what is reckoned once for all, is
    with Largest() as made:
        soft = soften.corrupt(canvas, t, Random(seeded(0)), tau=0.1).soft
    assert soft is not None
    assert made.size <= 9 * max(K // 9 + 1, canvas.ids.numel())
    assert made.size * 100 < len(soft.at) * K


def test_soft_tokens_need_the_schedule_of_their_gaussian() -> None:
    process = corruption().process
    with pytest.raises(TypeError, match=r"LogLinear has none: give the process the schedule Relaxed\(classes=11\)"):
        SoftCorruption(dataclasses.replace(process, schedule=LogLinear()))
    with pytest.raises(ValueError, match=r"classes=12, but the process has 11 states: give it Relaxed\(classes=11\)"):
        SoftCorruption(dataclasses.replace(process, schedule=Relaxed(classes=12)))
    with pytest.raises(ValueError, match="top_k=0 keeps no other token"):
        SoftCorruption(process, top_k=0)
    canvas, t = batch()
    for tau in (-0.1, math.nan):
        with pytest.raises(ValueError, match=f"tau={tau} is no temperature"):
            corruption().corrupt(canvas, t, Random(seeded(0)), tau)
