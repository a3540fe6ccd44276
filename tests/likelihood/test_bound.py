"""Both estimators have the mean that adding up gives, on every schedule; of a perfect belief it is -log p itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dllm_lightning.likelihood import ByCount, ByTime, CannotEstimate, Estimator, estimator, nats
from dllm_lightning.noise import Cosine, LogLinear
from dllm_lightning.process import MaskedDiffusion, UniformDiffusion
from dllm_lightning.types import Canvas
from tests.laws.parts import source
from tests.likelihood.worlds import VOCAB, by_counts, by_orders, opinion, texts
from tests.sampler.denoisers import Cavity, Joint, Oracle, plain, uniform

TEXT = torch.tensor([[0, 2, 1, 1, 0]])
both = pytest.mark.parametrize("by", [ByCount(), ByTime()], ids=["count", "time"])


def estimate(denoiser: object, by: Estimator, canvas: Canvas, copies: int, draws: int = 2) -> tuple[float, float]:
    """The mean over independent copies of one text, and its standard error."""
    many = Canvas(*(field.expand(copies, -1) for field in canvas))
    drawn = nats(denoiser, by, many, range(copies), 0, draws).mean(1)  # type: ignore[arg-type]
    return float(drawn.mean()), float(drawn.std() / copies**0.5)


@pytest.mark.parametrize("given", [0, 1, 3])
def test_the_average_over_counts_is_the_average_over_all_orders_of_writing(given: int) -> None:
    canvas = texts(TEXT, given)
    assert by_counts(opinion(), canvas) == pytest.approx(by_orders(opinion(), canvas), rel=1e-9)


@both
@pytest.mark.parametrize("schedule", [LogLinear(), Cosine()], ids=["loglinear", "cosine"])
def test_an_estimator_has_the_exact_mean_on_any_schedule(by: Estimator, schedule: LogLinear | Cosine) -> None:
    """Also of beliefs that no joint distribution has, and with a prompt."""
    canvas, denoiser = texts(TEXT, 1), opinion(MaskedDiffusion(VOCAB, schedule))
    mean, error = estimate(denoiser, by, canvas, copies=1200)
    exact = by_orders(opinion(), canvas)
    assert abs(mean - exact) < 4 * error < 0.25 * exact


def test_counts_and_times_agree_and_counts_vary_less() -> None:
    counted, timed = (estimate(opinion(), by, texts(TEXT), copies=1200) for by in (ByCount(), ByTime()))
    assert abs(counted[0] - timed[0]) < 4 * (counted[1] ** 2 + timed[1] ** 2) ** 0.5
    assert counted[1] < 0.7 * timed[1]


@both
def test_who_knows_a_joint_distribution_is_given_its_exact_log_probability(by: Estimator) -> None:
    x0 = torch.tensor([[1, 1, 0]])
    mean, error = estimate(Joint(source(), plain(VOCAB)), by, texts(x0), copies=2000)
    assert abs(mean + float(source()[1, 1, 0].log())) < 4 * error


def test_under_uniform_noise_a_perfect_belief_is_given_it_too() -> None:
    x0 = torch.tensor([[1, 1, 0]])
    mean, error = estimate(Cavity(source(), uniform(VOCAB)), ByTime(), texts(x0), copies=4000, draws=4)
    assert abs(mean + float(source()[1, 1, 0].log())) < 4 * error < 0.5


@both
def test_who_knows_the_answer_pays_nothing(by: Estimator) -> None:
    assert_close(nats(Oracle(TEXT, plain(VOCAB)), by, texts(TEXT), [0], 0, 4), torch.zeros(1, 4, dtype=torch.float64))


@both
def test_a_text_gets_the_same_whatever_batch_it_is_in(by: Estimator) -> None:
    rows = torch.randint(0, 3, (5, 6), generator=torch.Generator().manual_seed(3))
    together = nats(opinion(), by, texts(rows, 2), [4, 7, 9, 11, 2], 5, 4)
    alone = [nats(opinion(), by, texts(rows[[i]], 2), [n], 5, 4) for i, n in enumerate([4, 7, 9, 11, 2])]
    assert_close(together, torch.cat(alone))


@both
def test_padding_on_either_side_changes_nothing(by: Estimator) -> None:
    class Counter(Joint):
        """Looks at no place: only at how many slots are hidden."""

        def table(self, x_t: Tensor, t: Tensor, at: Tensor) -> Tensor:
            hidden = (x_t == VOCAB.mask_id).sum(1, keepdim=True).expand(at.shape)[at]
            sure = hidden[:, None].double() * torch.arange(1.0, VOCAB.size + 1)
            return sure.log_softmax(-1)

    denoiser = Counter(source(), plain(VOCAB))
    canvas = texts(TEXT, 1)
    plainly = nats(denoiser, by, canvas, [0], 0, 4)
    for left, right in ((3, 0), (0, 2)):
        padded = Canvas(*(torch.nn.functional.pad(field.long(), (left, right)).to(field.dtype) for field in canvas))
        assert_close(nats(denoiser, by, padded, [0], 0, 4), plainly)


@both
def test_the_network_is_told_how_much_is_hidden_by_its_own_clock(by: Estimator) -> None:
    told: list[tuple[float, float]] = []

    class Watching(Joint):
        def table(self, x_t: Tensor, t: Tensor, at: Tensor) -> Tensor:
            share = (x_t == VOCAB.mask_id).double().mean(1)
            told.extend(zip(self.process.schedule.mask_ratio(t).tolist(), share.tolist(), strict=True))
            return super().table(x_t, t, at)

    rows = torch.randint(0, 3, (400, 3), generator=torch.Generator().manual_seed(0))
    nats(Watching(source(), MaskedDiffusion(VOCAB, Cosine())), by, texts(rows), range(400), 0, 2)
    ratio, share = torch.tensor(told).T
    if isinstance(by, ByCount):
        assert_close(ratio, share, rtol=0, atol=1e-6)
    else:  # by chance more or less, on average as much
        assert abs(float((ratio - share).mean())) < 4 * float((ratio - share).std()) / len(told) ** 0.5


def test_exact_counts_are_refused_where_nothing_is_hidden() -> None:
    with pytest.raises(CannotEstimate, match=r"count hides .* UniformDiffusion hides none: give estimator=time"):
        ByCount().noise(UniformDiffusion(VOCAB, LogLinear()))


def test_each_process_has_its_better_estimator() -> None:
    assert estimator(plain(VOCAB)) == ByCount() and estimator(uniform(VOCAB)) == ByTime()
