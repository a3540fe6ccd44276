"""Psi-samplers: the share of the posterior, its twin sigma of ReMDM, and how the way is divided."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dllm_lightning.model.denoiser import NetworkDenoiser
from dllm_lightning.noise import Cosine, LogLinear
from dllm_lightning.sampler import (
    Ancestral,
    CannotUndo,
    Cap,
    Conf,
    Constant,
    Fixed,
    Kappa,
    Linear,
    Plateau,
    Posterior,
    PredictorCorrector,
    Psi,
    Rescale,
)
from dllm_lightning.sampler.kappa import Sigma
from tests.laws.odds import SURPRISING, chi_square
from tests.laws.parts import seeded, vocabulary
from tests.sampler.denoisers import Cavity, Joint, LittleNetwork, blank, plain, uniform
from tests.sampler.denoisers import Fixed as Always
from tests.sampler.test_ancestral import random_joint

VOCAB = vocabulary(5)
BOTH = pytest.mark.parametrize("noise", [plain, uniform])
ALPHAS = [(0.5, 0.25), (0.9, 0.875), (0.75, 0.0), (0.875, 0.75)]


def everywhere(kappa: Kappa, steps: int = 16, **options: Any) -> Psi:
    return Psi(steps, profile=Linear(0.0, 0.0), low=kappa, **options)


def sigma_of_the_paper(kind: str, eta: float, alpha_s: float, alpha_t: float) -> float:
    """ReMDM, section 4: the bound is that no probability below is negative."""
    bound = 1.0 if alpha_t == 0 else min(1.0, (1 - alpha_s) / alpha_t)
    return {"cap": min(eta, bound), "rescale": eta * bound, "fixed": eta}[kind]


@pytest.mark.parametrize(("alpha_s", "alpha_t"), ALPHAS)
@pytest.mark.parametrize(("kind", "kappa"), [("cap", Cap(0.05)), ("rescale", Rescale(0.05)), ("fixed", Fixed(0.05))])
def test_behind_masks_this_is_remdm(kind: str, kappa: Sigma, alpha_s: float, alpha_t: float) -> None:
    """sigma = (1 - kappa) (1 - alpha_s), for a mask in the mixture of two reverse steps and for a shown token."""
    process, p = plain(VOCAB), torch.tensor([[0.5, 0.25, 0.25, 0.0, 0.0]], dtype=torch.float64)
    sigma = sigma_of_the_paper(kind, 0.05, alpha_s, alpha_t)
    share = kappa(alpha_s, alpha_t, torch.zeros(1, 1).double())
    assert_close((1 - share) * (1 - alpha_s), torch.full((1, 1), sigma).double())
    at, alphas = torch.tensor([VOCAB.mask_id]), torch.tensor([[alpha_s], [alpha_t]], dtype=torch.float64)
    mixture = share * process.posterior(p, at, *alphas) + (1 - share) * process.renoised(p, at, *alphas)
    expected = p * (alpha_s - (1 - sigma) * alpha_t) / (1 - alpha_t)
    expected[0, VOCAB.mask_id] = (1 - alpha_s - sigma * alpha_t) / (1 - alpha_t)
    assert_close(mixture, expected)


@pytest.mark.parametrize("eta", [0.0, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("kind", [Cap, Rescale, Fixed])
def test_a_share_stays_a_share_and_the_last_stride_is_clean(kind: Any, eta: float) -> None:
    placed = torch.zeros(2, 3).double()
    for alpha_s, alpha_t in [*ALPHAS, (0.999, 0.99), (0.9, 0.9), (1.0, 0.9), (1.0, 0.0)]:
        share = kind(eta)(alpha_s, alpha_t, placed)
        assert ((share >= 0) & (share <= 1)).all() and (alpha_s < 1 or (share == 1).all())


def test_what_was_least_believed_when_it_was_written_is_taken_back_first() -> None:
    placed = torch.tensor([[0.9, 0.1, torch.inf], [torch.inf] * 3], dtype=torch.float64)
    sigma = Conf().sigma(0.75, 0.5, placed)
    weights = torch.tensor([-0.9, -0.1]).double().exp()
    assert_close(sigma[0], 0.5 * torch.cat([weights / weights.sum(), torch.zeros(1).double()]))
    assert (sigma[1] == 0).all() and (Conf()(0.75, 0.5, placed)[1] == 1).all()


def test_revealed_tokens_are_taken_back_as_often_as_sigma_says() -> None:
    """On a plateau nothing else happens: everything is shown in the beginning, and one stride is taken."""
    canvas = blank(*[10] * 1000, prompt=2, vocab=VOCAB)
    sampler = Psi(10, noise=0.1, profile=Plateau(0.0, 0.9, 0.9), middle=Fixed(0.02))
    belief = torch.tensor([[0.5, 0.25, 0.25, 0.0, 0.0]]).log().expand(12, 5)
    first = next(sampler.trajectory(Always(belief, plain(VOCAB)), canvas, seeded(0), torch.zeros_like(canvas.ids)))
    counts = torch.tensor([first.changed.sum(), canvas.editable.sum() - first.changed.sum()])
    assert chi_square(counts, torch.tensor([0.02, 0.98]) * 10_000) < SURPRISING
    assert (first.x[first.changed] == VOCAB.mask_id).all() and (first.confidence == 0).all()


@BOTH
def test_with_the_posterior_alone_it_is_ancestral_draw_for_draw(noise: Any) -> None:
    vocab = vocabulary(11)
    canvas = blank(8, 3, 5, vocab=vocab)
    denoiser = NetworkDenoiser(LittleNetwork(vocab), noise(vocab))  # type: ignore[arg-type]
    for psi in (everywhere(Posterior()), everywhere(Constant(1.0)), everywhere(Cap(0.0))):
        pairs = zip(
            psi.trajectory(denoiser, canvas, seeded(3)),
            Ancestral(16).trajectory(denoiser, canvas, seeded(3)),
            strict=False,
        )
        assert all(torch.equal(ours.x, theirs.x) and ours.s == theirs.s for ours, theirs in pairs)


KAPPAS = [Posterior(), PredictorCorrector(), Constant(0.7), Cap(0.2), Rescale(0.5), Fixed(0.1)]


@BOTH
@pytest.mark.parametrize("kappa", KAPPAS, ids=str)
def test_the_distribution_of_a_slot_is_right_for_every_kappa_and_any_number_of_strides(noise: Any, kappa: Any) -> None:
    belief, rows = torch.tensor([[0.5, 0.3, 0.2, 0.0, 0.0]]), 4000
    canvas = blank(*[1] * rows, prompt=0, vocab=VOCAB)
    process = noise(VOCAB)
    steps = list(everywhere(kappa, 3).trajectory(Always(belief.log(), process), canvas, seeded(4)))
    for step in steps:
        alpha = process.schedule.alpha(torch.tensor(step.s).double())
        expected = alpha * belief[0].double() + (1 - alpha) * process.stationary
        assert chi_square(torch.bincount(step.x.flatten(), minlength=5), expected * rows) < SURPRISING
    assert len(steps) == 3


@pytest.mark.parametrize(
    ("noise", "kappa"),
    [(plain, Cap(0.02)), (plain, Rescale(0.05)), (uniform, Cap(0.02)), (uniform, Constant(0.97))],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_many_strides_with_a_perfect_network_draw_from_the_joint(noise: Any, kappa: Kappa) -> None:
    p, rows = random_joint(3, 3, seed=0), 2000
    joint = (Joint if noise is plain else Cavity)(p, noise(VOCAB))
    texts = everywhere(kappa, 60).sample(joint, blank(*[2] * rows, prompt=0, vocab=VOCAB), seeded(5))
    assert chi_square(joint.counts(texts), p * rows) < SURPRISING


@BOTH
def test_the_loop_on_a_plateau_repairs_what_parallel_strides_broke(noise: Any) -> None:
    """Few strides down, many on the plateau: nearer to the joint than the same strides with nothing taken back."""
    p: Tensor = torch.eye(3).double() / 3
    joint, rows = (Joint if noise is plain else Cavity)(p, noise(VOCAB)), 2000
    canvas = blank(*[2] * rows, prompt=0, vocab=VOCAB)

    def wrong(middle: Kappa) -> int:
        profile = Plateau(high=0.1, middle=0.8, level=0.7)
        text = Psi(20, profile=profile, middle=middle, low=Posterior()).sample(joint, canvas, seeded(6))
        return int((text[:, 0] != text[:, 1]).sum())

    assert wrong(Fixed(0.15)) < 0.85 * wrong(Posterior())


def test_the_way_is_divided_as_it_says() -> None:
    way = Plateau(0.45, 0.5, 0.9).strides(LogLinear(), 20, 1.0, Posterior(), Fixed(0.02), Constant(0.5))
    assert [type(stride.kappa).__name__ for stride in way] == ["Posterior"] * 9 + ["Fixed"] * 10 + ["Constant"]
    assert all(stride.alpha_s == stride.alpha_t == pytest.approx(0.9) for stride in way[9:19])
    assert_close(torch.tensor([s.alpha_s for s in way[:9]]), torch.linspace(0.1, 0.9, 9))
    assert way[-1].alpha_s == 1.0


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 7, 16, 33])
@pytest.mark.parametrize("profile", [Linear(), Linear(0.5, 0.5), Plateau(), Plateau(0.0, 1.0, 0.3), Plateau(1.0, 0.0)])
def test_every_way_has_its_number_of_strides_and_ends_clean(profile: Any, steps: int) -> None:
    for start, schedule in ((1.0, LogLinear()), (0.05, Cosine())):
        way = profile.strides(schedule, steps, start, Posterior(), Posterior(), Posterior())
        assert len(way) == steps and (way[0].t, way[-1].s, way[-1].alpha_s) == (start, 0.0, 1.0)
        assert all(ours.s == following.t for ours, following in pairwise(way))
        assert all(stride.s <= stride.t and stride.alpha_t <= stride.alpha_s for stride in way)


def test_confidence_when_revealed_is_refused_where_nothing_is_ever_revealed() -> None:
    with pytest.raises(
        CannotUndo, match=r"Psi cannot be used: its kappa Conf goes by .* UniformDiffusion none ever is"
    ):
        everywhere(Conf()).trajectory(Always(torch.zeros(1, 5), uniform(VOCAB)), blank(1, vocab=VOCAB))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Cap(-0.1), "sampler.eta=-0.1"),
        (lambda: Constant(1.5), "sampler.kappa=1.5"),
        (lambda: Linear(0.7, 0.7), "more than all strides"),
        (lambda: Plateau(level=1.0), "sampler.profile.level=1.0 is no place to stay"),
    ],
)
def test_numbers_without_sense_are_refused(build: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        build()
