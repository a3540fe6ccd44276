"""The one mean: however a global batch is cut into micro-batches, ranks, rows and packing, it comes out the same."""

from __future__ import annotations

from typing import NamedTuple, get_args

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dllm_lightning.loss import CE, Elbo, Loss, MaskedCE
from dllm_lightning.loss.loss import Per
from dllm_lightning.noise import LogLinear
from dllm_lightning.process import UniformDiffusion
from dllm_lightning.types import Canvas, Corrupted
from tests.laws.parts import leaves, seeded, vocabulary

OF_ASKED = (MaskedCE, CE)
"""The losses whose mean runs over asked slots; that of the others runs over all that are editable."""
LOSSES: list[type[Loss]] = list(leaves(Loss))

every = pytest.mark.parametrize("loss", [kind(per=per) for kind in LOSSES for per in get_args(Per)], ids=str)


class Document(NamedTuple):
    """Per slot: may it change, is it asked about, and the nats that a loss gives it."""

    editable: list[bool]
    asked: list[bool]
    nats: list[float]


def documents(count: int, generator: torch.Generator) -> list[Document]:
    """Of 1 to 9 slots; some have no answer, and of some nothing is asked."""
    made = []
    for number in range(count):
        length = int(torch.randint(1, 10, (), generator=generator))
        editable = torch.rand(length, generator=generator) < (0.0 if number % 5 == 4 else 0.7)
        asked = editable & (torch.rand(length, generator=generator) < (0.0 if number % 4 == 3 else 0.6))
        nats = torch.randn(length, generator=generator, dtype=torch.float64)
        made.append(Document(editable.tolist(), asked.tolist(), nats.tolist()))
    return made


def batch(rows: list[list[Document]], length: int = 24, left: int = 0) -> tuple[Corrupted, Tensor]:
    """Rows of packed documents as a noised batch, in which asked slots show another token; the nats of these."""
    fields: tuple[list[list[float]], ...] = ([], [], [], [])
    for documents in rows:
        editable, asked, nats, segment = ([0.0] * left for _ in fields)
        for number, document in enumerate(documents, start=1):
            editable += document.editable
            asked += document.asked
            nats += document.nats
            segment += [number] * len(document.nats)
        for field, values in zip(fields, (editable, asked, nats, segment), strict=True):
            field.append(values + [0.0] * (length - len(values)))
    editable, asked, nats, segment = (torch.tensor(field, dtype=torch.float64) for field in fields)
    ids = torch.zeros_like(segment, dtype=torch.long)
    canvas = Canvas(ids, editable.bool(), segment.long())
    return Corrupted(canvas, asked.long(), torch.full(ids.shape, 0.5), asked.bool()), nats[asked.bool()]


def mean(loss: Loss, *batches: tuple[Corrupted, Tensor]) -> float:
    """The global mean as a trainer forms it: two sums over all batches, one division."""
    shares = [(loss.share(noised), nats) for noised, nats in batches]
    return (sum((s.weight * nats).sum() for s, nats in shares) / sum(s.total for s, _ in shares)).item()


def by_hand(loss: Loss, documents: list[Document]) -> float:
    """The mean that the words of `per` describe, one document at a time."""
    sums, counts = [], []
    for document in documents:
        sums.append(sum(nats for nats, asked in zip(document.nats, document.asked, strict=True) if asked))
        counts.append(sum(document.asked if isinstance(loss, OF_ASKED) else document.editable))
    if loss.per == "token":
        return sum(sums) / sum(counts)
    with_slots = [(total, count) for total, count in zip(sums, counts, strict=True) if count]
    values = [total / count if loss.per == "sequence" else total for total, count in with_slots]
    return sum(values) / len(values)


@every
@pytest.mark.parametrize("seed", [0, 1])
def test_the_mean_is_the_same_however_the_batch_is_cut(loss: Loss, seed: int) -> None:
    generator = seeded(seed)
    made = documents(24, generator)
    whole = by_hand(loss, made)
    rows = [[document] for document in made]
    cuts = {
        "one batch": [rows],
        "one document a time": [[single] for single in rows],
        "micro-batches": [rows[:3], rows[3:4], rows[4:17], rows[17:]],
        "packed": [[made[i : i + 2] for i in range(0, 24, 2)]],
        "packed and cut": [[made[:2], made[2:3]], [made[3:5]], [made[i : i + 2] for i in range(5, 23, 2)], [made[23:]]],
        "in another order": [rows[::-1][:10], rows[::-1][10:]],
    }
    for name, cut in cuts.items():
        assert mean(loss, *(batch(part) for part in cut)) == pytest.approx(whole, rel=1e-6), name
    assert mean(loss, batch(rows, length=30, left=5)) == pytest.approx(whole, rel=1e-6)


@every
def test_gradients_add_up_over_micro_batches(loss: Loss) -> None:
    made = documents(12, seeded(5))
    theta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def descend(parts: list[list[list[Document]]]) -> Tensor:
        theta.grad = None
        batches = [batch(part) for part in parts]
        shares = [loss.share(noised) for noised, _ in batches]
        total = sum(share.total for share in shares)
        for share, (_, nats) in zip(shares, batches, strict=True):
            ((share.weight * nats * theta.exp()).sum() / total).backward()
        assert theta.grad is not None
        return theta.grad

    rows = [[document] for document in made]
    assert_close(descend([rows]), descend([rows[:2], rows[2:3], rows[3:9], rows[9:]]))


@every
def test_a_batch_of_which_nothing_is_asked_adds_no_nats(loss: Loss) -> None:
    """And does not change the mean of the others, except for the slots that it was silent about."""
    silent = [[Document([True] * 3, [False] * 3, [1.0] * 3)], [Document([False], [False], [1.0])]]
    noised, nats = batch(silent)
    share = loss.share(noised)
    assert share.weight.shape == nats.shape == (0,)
    assert (share.weight * nats).sum().item() == 0
    expected = 0 if isinstance(loss, OF_ASKED) else 3 if loss.per == "token" else 1
    assert share.total.item() == expected
    spoken = documents(6, seeded(1))
    assert mean(loss, (noised, nats), batch([[document] for document in spoken])) == pytest.approx(
        by_hand(loss, [*spoken, *(document for row in silent for document in row)]), rel=1e-6
    )


@every
def test_a_batch_of_padding_alone_has_no_share(loss: Loss) -> None:
    noised, _ = batch([[], []])
    share = loss.share(noised)
    assert share.weight.numel() == 0 and share.total.item() == 0


def test_what_each_unit_of_the_mean_does_on_two_answers_by_hand() -> None:
    """An answer of 4 slots with 2 asked (1 and 3 nats), and one of 1 slot, asked (6 nats)."""
    long = Document([False, True, True, True, True], [False, True, False, True, False], [9.0, 1.0, 9.0, 3.0, 9.0])
    short = Document([False, True], [False, True], [9.0, 6.0])
    noised = batch([[long, short]])
    assert mean(MaskedCE(per="token"), noised) == pytest.approx(10 / 3)
    assert mean(MaskedCE(per="sequence"), noised) == pytest.approx((2 + 6) / 2)
    assert mean(MaskedCE(per="batch"), noised) == pytest.approx((4 + 6) / 2)
    assert mean(Elbo(per="token"), noised) == pytest.approx(10 / 5)
    assert mean(Elbo(per="sequence"), noised) == pytest.approx((1 + 6) / 2)
    assert mean(Elbo(per="batch"), noised) == pytest.approx((4 + 6) / 2)


def test_what_shows_its_own_token_is_counted_if_the_loss_is_asked_to() -> None:
    """An answer of 3 noised slots, of which the second still shows its token; and one where all three do."""
    clean = Canvas(torch.tensor([[5, 6, 7], [5, 6, 7]]), torch.ones(2, 3).bool(), torch.ones(2, 3).long())
    noised = Corrupted(clean, torch.tensor([[1, 6, 2], [5, 6, 7]]), torch.full((2, 3), 0.5), clean.editable)
    slots, belief = noised.slots(), torch.full((6, 9), -3.0)
    process = UniformDiffusion(vocabulary(9, first_noise=1), LogLinear())
    for loss, nats, total in (
        (CE(), [3, 0, 3, 0, 0, 0], 2),
        (CE(slots="all"), [3] * 6, 6),
        (CE(per="sequence"), [3, 0, 3, 0, 0, 0], 1),
    ):
        assert loss(belief, slots, process).tolist() == nats
        share = loss.share(noised)
        assert share.total.item() == total and torch.isfinite(share.weight).all()
        assert (share.weight * loss(belief, slots, process)).sum() / share.total == 3
