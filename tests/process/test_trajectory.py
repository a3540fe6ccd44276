"""One noise at all times: each time by itself is uniform noise, and two of them are what shared Gaussians make them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dllm_lightning.noise import LogLinear
from dllm_lightning.process import Gaussian, GaussianTrajectory, PerPlace, Random, UniformDiffusion
from dllm_lightning.types import Canvas, Vocab
from tests.laws.parts import mixed_batch, seeded, vocabulary

K = 16
PROCESS = UniformDiffusion(
    Vocab(K + 2, K + 2, K + 1, pad_id=0, eos_id=1, noise_ids=torch.arange(1, K + 1)), LogLinear()
)
TRAJECTORY = GaussianTrajectory.between(PROCESS, (0.98, 0.02))
ROWS, LENGTH, X = 200, 400, 5
MANY = Canvas(*(torch.full((ROWS, LENGTH), value) for value in (X, True, 1)))
S, T = 0.35, 0.6


def at(t: float, canvas: Canvas = MANY, trajectory: GaussianTrajectory = TRAJECTORY, seed: int = 0) -> Tensor:
    draws = PerPlace(seed, 0, 0, len(canvas.ids))
    return trajectory.at(canvas, torch.full(canvas.ids.shape, t), draws).x_t


def gamma(t: float) -> float:
    schedule = TRAJECTORY.process.schedule
    return schedule.gamma(torch.tensor(t, dtype=torch.float64)).item()  # type: ignore[attr-defined]


def five_sigma(p: float, n: int) -> float:
    return 5 * math.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize("t", [0.0, T, 1.0])
def test_each_time_by_itself_is_uniform_noise(t: float) -> None:
    """alpha = T(gamma_t) keeps the token, the rest falls on all K alike."""
    drawn, n = at(t), ROWS * LENGTH
    alpha = Gaussian(K).alpha(torch.tensor(gamma(t), dtype=torch.float64)).item()
    shares = torch.bincount(drawn.flatten(), minlength=K + 2).double() / n
    expected = torch.zeros(K + 2, dtype=torch.float64)
    expected[1 : K + 1] = (1 - alpha) / K
    expected[X] += alpha
    assert all(abs(a - b) <= five_sigma(b, n) for a, b in zip(shares.tolist(), expected.tolist(), strict=True))


def test_two_times_are_joined_as_all_K_gaussians_would_join_them() -> None:
    """Kept at both, lost in between, lost at both to one token, and never anything else: against K numbers a slot."""
    n = ROWS * LENGTH
    noise = torch.randn(n, K, generator=seeded(1), dtype=torch.float64)

    def largest(t: float) -> Tensor:
        sharp, soft = (torch.tensor(sign * gamma(t)).sigmoid().sqrt() for sign in (-1, 1))
        latents = soft * noise
        latents[:, X - 1] += sharp
        return latents.argmax(1) + 1

    def events(x_s: Tensor, x_t: Tensor) -> list[float]:
        kept, lost = (x_s == X) & (x_t == X), (x_s == X) & (x_t != X)
        gone = (x_s != X) & (x_t == x_s)
        return [event.double().mean().item() for event in (kept, lost, gone)]

    ours, theirs = events(at(S).flatten(), at(T).flatten()), events(largest(S), largest(T))
    assert sum(ours) == pytest.approx(1.0) and sum(theirs) == pytest.approx(1.0)
    assert all(abs(a - b) <= math.sqrt(2) * five_sigma(b, n) for a, b in zip(ours, theirs, strict=True))


def test_the_closer_two_times_are_the_more_often_they_agree() -> None:
    agreement = [(at(T) == at(T - delta)).double().mean().item() for delta in (0.5, 0.1, 0.01, 0.0)]
    assert agreement == sorted(agreement) and agreement[0] < 0.6 and agreement[-2] > 0.98 and agreement[-1] == 1.0


def test_a_token_that_is_lost_is_lost_for_good_and_to_one_other() -> None:
    path = torch.stack([at(t) for t in torch.linspace(0, 1, 6).tolist()])
    moves = (path[1:] != path[:-1]).sum(0)
    assert moves.max() == 1 and (path[1:] == X)[path[:-1] != X].sum() == 0


def test_nothing_but_the_editable_states_is_touched() -> None:
    """[MASK], unused rows and prompts stay, and are not asked about."""
    vocab = vocabulary(11, first_noise=3)
    trajectory = GaussianTrajectory.between(UniformDiffusion(vocab, LogLinear()), (0.9, 0.1))
    canvas = mixed_batch(vocab, seeded(0))
    batch = trajectory.at(canvas, torch.ones(canvas.ids.shape), Random(seeded(1)))
    open_to_noise = canvas.editable & trajectory.process.is_state(canvas.ids)
    assert batch.asked.equal(open_to_noise) and batch.soft is None
    assert batch.x_t[~open_to_noise].equal(canvas.ids[~open_to_noise])
    assert trajectory.process.is_state(batch.x_t[open_to_noise]).all()


def test_a_schedule_without_a_gaussian_has_no_trajectory() -> None:
    with pytest.raises(TypeError, match="LogLinear has none"):
        GaussianTrajectory(PROCESS)
