"""Drawing tokens: the most probable one, or any with its own probability, however rare."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from dllm_lightning.sampler import Ancestral, Refine, Reveal
from dllm_lightning.sampler.choose import categorical, nucleus, sharpen
from tests.laws.odds import SURPRISING, chi_square
from tests.laws.parts import seeded, vocabulary
from tests.sampler.denoisers import Fixed, blank, plain, uniform

VOCAB = vocabulary(5)

P = torch.tensor([0.6, 0.25, 0.1, 0.05, 0.0])


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_a_draw_has_the_sharpened_distribution(temperature: float) -> None:
    drawn = categorical(P.log().expand(20_000, 5), temperature, seeded(0))
    expected = P ** (1 / temperature) / (P ** (1 / temperature)).sum()
    assert chi_square(torch.bincount(drawn, minlength=5), expected * 20_000) < SURPRISING


def test_temperature_zero_takes_the_most_probable_token_and_draws_nothing() -> None:
    log_p, generator = torch.randn(50, 9, generator=seeded(0)).log_softmax(-1), seeded(1)
    before = generator.get_state()
    assert torch.equal(categorical(log_p, 0.0, generator), log_p.argmax(-1))
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0, 3.0])
def test_sharpened_beliefs_are_what_is_drawn_from(temperature: float) -> None:
    p = sharpen(P.log()[None], temperature).exp()
    expected = torch.eye(5)[0] if temperature == 0 else P ** (1 / temperature) / (P ** (1 / temperature)).sum()
    assert_close(p[0], expected.double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.01, [1.0, 0, 0, 0]), (0.6, [1.0, 0, 0, 0]), (0.625, [5 / 7, 2 / 7, 0, 0]), (0.9, [5 / 8, 2 / 8, 1 / 8, 0])],
)
def test_a_nucleus_keeps_the_token_that_crosses_the_line_and_at_least_one(top_p: float, kept: list[float]) -> None:
    """Before the tokens stand 0, 5/8, 7/8 and 1 of the mass, exact in binary; a line at 5/8 is not yet exceeded."""
    p = torch.tensor([[0.125, 0.625, 0.0, 0.25]], dtype=torch.float64)
    before = p.clone()
    expected = torch.tensor(kept, dtype=torch.float64)[[2, 0, 3, 1]]
    assert_close(nucleus(p, top_p)[0], expected)
    assert torch.equal(p, before)


def test_the_whole_nucleus_is_the_belief_itself() -> None:
    p = torch.rand(5, 9, generator=seeded(0)).softmax(-1)
    assert torch.equal(nucleus(p, 1.0), p)


def test_a_token_without_mass_is_never_drawn() -> None:
    log_p = torch.full((5000, 3), -torch.inf)
    log_p[:, 1] = 0.0
    assert (categorical(log_p, 100.0, seeded(0)) == 1).all()


def test_a_network_whose_beliefs_are_not_numbers_is_told_so() -> None:
    lost = torch.full((4, VOCAB.size), torch.nan)
    for process, sampler in ((plain(VOCAB), Reveal()), (plain(VOCAB), Ancestral()), (uniform(VOCAB), Refine())):
        with pytest.raises(ValueError, match="weights have diverged"):
            sampler.sample(Fixed(lost, process), blank(4, prompt=0))
