"""Sums that add up: over batches, over draws, over ranks; and errors that mean what errors mean."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from dllm_lightning.model.metrics import NatsPerToken, PerBand, UnigramEntropy, noise_share
from dllm_lightning.types import Canvas, Corrupted
from tests.laws.parts import row, seeded, stack
from tests.model.parts import canvas, documents


def draw(canvas: Canvas, seed: int, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Nats at a random half of the editable slots, larger in some documents than in others."""
    generator = torch.Generator().manual_seed(seed)
    at = (canvas.editable & (torch.rand(canvas.ids.shape, generator=generator) < 0.5)).flatten().nonzero().squeeze(-1)
    difficulty = 1 + (canvas.ids[:, :1] % 7).float().expand(canvas.ids.shape).flatten()[at]
    return scale * difficulty * torch.rand(len(at), generator=generator), at


def estimate(*batches: tuple[torch.Tensor, torch.Tensor, Canvas]) -> tuple[float, float]:
    metric = NatsPerToken()
    for batch in batches:
        metric.update(*batch)
    mean, error = metric.compute()
    return float(mean), float(error)


def test_the_mean_is_nats_over_tokens_and_draws_of_a_document_add_up() -> None:
    """Two draws of half the nats each are one draw of all; tokens and documents count once."""
    one = canvas(documents(12))
    nats, at = draw(one, 0)
    mean, error = estimate((nats, at, one))
    assert mean == pytest.approx(float(nats.double().sum() / one.editable.sum()))
    twice = torch.cat([nats / 2, nats / 2]), torch.cat([at, at])
    assert estimate((*twice, one)) == pytest.approx((mean, error))


def test_batches_add_up_however_they_are_cut() -> None:
    many = documents(12)
    whole = canvas(many)
    nats, at = draw(whole, 0)
    length = whole.ids.shape[1]
    parts = []
    for start, stop in ((0, 5), (5, 6), (6, 12)):
        inside = (at >= start * length) & (at < stop * length)
        part = Canvas(*(field[start:stop] for field in whole))
        parts.append((nats[inside], at[inside] - start * length, part))
    assert estimate(*parts) == pytest.approx(estimate((nats, at, whole)))


def test_the_error_is_what_a_bootstrap_over_documents_finds() -> None:
    """A ratio of sums: documents with long answers move both."""
    many = canvas(documents(300))
    nats, at = draw(many, 0)
    mean, error = estimate((nats, at, many))
    per_document = torch.zeros(300, dtype=torch.float64).index_add_(0, at // many.ids.shape[1], nats.double())
    tokens = many.editable.sum(1).double()
    again = torch.randint(0, 300, (4000, 300), generator=seeded(1))
    ratios = per_document[again].sum(1) / tokens[again].sum(1)
    assert float(ratios.mean()) == pytest.approx(mean, rel=0.01)
    assert error == pytest.approx(float(ratios.std()), rel=0.08)


def test_rows_without_an_answer_count_nothing() -> None:
    some = canvas(documents(5))
    nats, at = draw(some, 0)
    length = some.ids.shape[1]
    prompts = row([7, 8, 9], [4, 4], length=length, prompt=9)
    beside = stack(row(length=length), some, prompts, row(length=length))
    assert estimate((nats, at + length, beside)) == estimate((nats, at, some))
    nothing = torch.empty(0), torch.empty(0, dtype=torch.long), row(length=length)
    assert estimate(nothing, (nats, at, some)) == estimate((nats, at, some))


def test_one_document_has_no_error_to_tell() -> None:
    one = canvas(documents(1))
    assert estimate((*draw(one, 0), one))[1] == 0.0


def test_bands_are_quarters_of_the_mask_ratio_and_empty_ones_say_so() -> None:
    metric = PerBand()
    ratio = torch.tensor([0.1, 0.2, 0.3, 0.9, 1.0])
    metric.update(ratio, torch.tensor([1.0, 3.0, 5.0, 7.0, 9.0]), torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0]))
    values = {name: float(value) for name, value in metric.compute().items()}
    assert values.pop("accuracy/50-75") != values.pop("loss/50-75")  # not a number: nobody was there
    assert values == {
        "accuracy": pytest.approx(0.8),
        "accuracy/0-25": 0.5,
        "loss/0-25": 2.0,
        "accuracy/25-50": 1.0,
        "loss/25-50": 5.0,
        "accuracy/75-100": 1.0,
        "loss/75-100": 8.0,
    }


def test_the_share_of_noise_is_that_of_the_answer_in_its_own_document() -> None:
    """Prompt slots do not count, and neither do the neighbour in the row and slots that were drawn as they were."""
    one = row([3, 4, 5, 6, 7], [8, 9, 10], length=9, prompt=1)
    x_t = torch.tensor([[3, 11, 5, 6, 7, 8, 2, 2, 0]])
    batch = Corrupted(one, x_t, torch.zeros(1, 9), one.editable)
    assert_close(noise_share(batch)[one.editable], torch.tensor([0.25, 0.25, 0.25, 0.25, 1.0, 1.0]))


def test_unigram_entropy_of_even_frequencies_is_the_log_of_their_number() -> None:
    metric = UnigramEntropy(20)
    metric.update(row([1, 2, 3], length=5))
    metric.update(row([9, 4, 1], [9, 2, 3, 4], length=9, prompt=1))
    assert float(metric.compute()) == pytest.approx(torch.tensor(4.0).log().item())
