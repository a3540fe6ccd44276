"""Standard errors say how far estimates fall from the truth: found by doing it again and again."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dllm_lightning.likelihood import ByCount, ByTime, Estimator, nats, noise, per_token
from dllm_lightning.types import Canvas
from tests.laws.parts import seeded, source
from tests.likelihood.worlds import VOCAB, texts
from tests.sampler.denoisers import Fixed, Joint, plain

TIMES = 400
DOCUMENTS = 30
SURE = 1.959964
both = pytest.mark.parametrize("by", [ByCount(), ByTime()], ids=["count", "time"])
denoiser = Joint(source(), plain(VOCAB))


def documents(count: int) -> tuple[Canvas, Tensor]:
    """Texts of the source, of which none, one or two tokens are given; and -log p of the others."""
    drawn = torch.multinomial(source().flatten(), count, replacement=True, generator=seeded(1))
    given = torch.randint(0, 3, (count,), generator=seeded(2))
    rows = denoiser.texts[drawn]
    canvas = texts(rows)._replace(editable=torch.arange(3) >= given[:, None])
    return canvas, surprise(rows, given)


def surprise(rows: Tensor, given: Tensor) -> Tensor:
    """-log p of all tokens but the first `given`, given these."""
    p, (a, b, c) = source(), rows.T
    marginals = torch.stack([torch.ones_like(p[a, b, c]), p.sum((1, 2))[a], p.sum(2)[a, b]])
    return marginals.gather(0, given[None]).squeeze(0).log() - p[a, b, c].log()


def covered(estimates: list[float], errors: list[float], truth: float) -> float:
    """How often the truth lies within 1.96 errors."""
    pairs = zip(estimates, errors, strict=True)
    return sum(abs(value - truth) < SURE * error for value, error in pairs) / len(estimates)


@both
def test_the_error_over_texts_covers_the_truth_as_often_as_it_says(by: Estimator) -> None:
    """The truth is that of the source: other texts, other noise. Texts have different lengths."""
    canvas, _ = documents(TIMES * DOCUMENTS)
    drawn = nats(denoiser, by, canvas, range(len(canvas.ids)), 0, 2).view(TIMES, DOCUMENTS, 2)
    tokens = canvas.editable.sum(1).view(TIMES, DOCUMENTS)
    found = [per_token(*each) for each in zip(drawn, tokens, strict=True)]
    rows = denoiser.texts
    exact = sum(source().flatten() @ surprise(rows, torch.full((27,), given)) for given in range(3)) / 3 / 2
    assert 0.90 < covered([f.value for f in found], [f.error for f in found], float(exact)) < 0.98


@both
@pytest.mark.parametrize("draws", [2, 4, 10])
def test_the_noise_covers_what_more_draws_would_say_of_the_same_texts(by: Estimator, draws: int) -> None:
    canvas, exact = documents(DOCUMENTS)
    tokens = canvas.editable.sum(1)
    again = Canvas(*(field.repeat(TIMES, 1) for field in canvas))  # with other numbers, so with other noise
    drawn = nats(denoiser, by, again, range(TIMES * DOCUMENTS), 0, draws).view(TIMES, DOCUMENTS, draws)
    found = [per_token(each, tokens) for each in drawn]
    values, errors = [each.value for each in found], [each.noise for each in found]
    assert 0.91 < covered(values, errors, float(exact.sum() / tokens.sum())) < 0.98
    assert 0.9 < float(torch.tensor(errors).square().mean().sqrt() / torch.tensor(values).std()) < 1.1


def test_texts_count_once_however_long_they_are() -> None:
    """Tokens of a text are surprising together: ten copies of each token say nothing new."""
    drawn = torch.tensor([[2.0, 2.0], [3.0, 3.0], [7.0, 7.0]])
    one = per_token(drawn, torch.tensor([1, 2, 3]))
    ten = per_token(10 * drawn, torch.tensor([10, 20, 30]))
    assert (one.value, one.error) == pytest.approx((ten.value, ten.error)) and one.value == 2.0
    assert one.error == pytest.approx(math.sqrt((0 + 1 + 1) * 3 / 2) / 6)


def test_pairs_tell_the_noise_whatever_the_strata_are() -> None:
    drawn = torch.tensor([[1.0, 3.0, 100.0, 104.0]])
    assert float(noise(drawn)) == pytest.approx(math.sqrt(2**2 + 4**2) / 4)


def test_what_cannot_be_known_is_no_number() -> None:
    assert math.isnan(per_token(torch.ones(1, 4), torch.tensor([2])).error)
    assert math.isnan(per_token(torch.ones(3, 1), torch.tensor([2, 2, 2])).noise)


@both
def test_choices_on_the_same_noise_differ_by_less_chance(by: Estimator) -> None:
    """Two answers to one question, of which one token differs: what the others cost is the same in both."""
    belief = Fixed(torch.rand(5, VOCAB.size, generator=seeded(4)).double().log_softmax(1) * 2, plain(VOCAB))
    rows = torch.tensor([[0, 1, 1, 0, 2], [0, 1, 1, 0, 1]]).repeat(1000, 1)
    spread = []
    for numbers in ([n // 2 for n in range(2000)], range(2000)):
        drawn = nats(belief, by, texts(rows, 1), numbers, 0, 2).mean(1).view(1000, 2)
        spread.append(float((drawn[:, 0] - drawn[:, 1]).std()))
    assert spread[0] < 0.6 * spread[1]
