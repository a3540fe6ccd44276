"""A prompt that is dropped is dropped whole, in as many documents as it should be, and nothing else moves for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_lightning.noise import LogLinear
from dllm_lightning.process import (
    Draws,
    GaussianTrajectory,
    MaskedDiffusion,
    PerDocument,
    PerPlace,
    Process,
    Random,
    Relaxed,
    Replace,
    SoftCorruption,
    UniformCount,
    UniformDiffusion,
)
from dllm_lightning.types import Canvas, Corrupted, Vocab
from tests.laws.odds import SURPRISING, correlation
from tests.laws.parts import leaves, mixed_batch, row, seeded, stack

K, MARK = 12, 11
VOCAB = Vocab(K + 2, K + 1, mask_id=K, pad_id=0, eos_id=1, noise_ids=torch.arange(2, MARK))
"""Ids 2 to 10 are words; 0 pads, 1 ends an answer, 11 marks a turn, 12 is the mask, no token belongs to 13."""
SHARE = 0.3


def process_of(kind: Any, dropout: float = SHARE, **options: Any) -> Any:
    return kind(
        VOCAB, Relaxed(classes=10) if kind is UniformDiffusion else LogLinear(), prompt_dropout=dropout, **options
    )


def soft(dropout: float, **options: Any) -> SoftCorruption:
    return SoftCorruption(process_of(UniformDiffusion, dropout, **options), top_k=3)


Corrupt = Callable[[Canvas, Tensor, Draws], Corrupted]
WAYS: dict[str, Callable[..., Corrupt]] = {
    **{
        kind.__name__: lambda dropout, kind=kind, **o: process_of(kind, dropout, **o).corrupt
        for kind in leaves(Process)
    },
    "mixture": lambda dropout, **o: process_of(MaskedDiffusion, dropout, replace=Replace(0.8, 0.1, 0.1), **o).corrupt,
    "soft tokens": lambda dropout, **o: lambda *a: soft(dropout, **o).corrupt(*a, tau=0.1),
    "a trajectory": lambda dropout, **o: GaussianTrajectory(process_of(UniformDiffusion, dropout, **o)).at,
}
"""Every way in which text is corrupted in training."""
SOURCES: dict[str, Callable[[], Any]] = {
    "generator": lambda: Random(seeded(3)),
    "place": lambda: PerPlace(3, step=5, first=2, rows=700),
    "document": lambda: PerDocument(3),
}
every_way = pytest.mark.parametrize("way", WAYS)
every_source = pytest.mark.parametrize("source", SOURCES)


def packed(rows: int = 600) -> Canvas:
    """Two documents a row between padding, each of a mark, two or three random words, and an answer of three."""
    draw = seeded(1)

    def words(n: int) -> list[int]:
        return torch.randint(2, MARK, (n,), generator=draw).tolist()

    one = [row([MARK, *words(5)], length=8, prompt=3, left=1) for _ in range(rows)]
    two = [row([MARK, *words(6)], length=8, prompt=4) for _ in range(rows)]
    both = [
        Canvas(*(torch.cat(pair, 1) for pair in zip(*documents, strict=True)))
        for documents in zip(one, two, strict=True)
    ]
    canvas = stack(*both)
    return canvas._replace(segment=torch.where(torch.arange(16) < 8, canvas.segment, 2 * canvas.segment))


PACKED = packed()
WORDS = ~PACKED.editable & (PACKED.ids >= 2) & (PACKED.ids < MARK) & (PACKED.segment > 0)


def corrupted(way: str, source: str, canvas: Canvas = PACKED, dropout: float = SHARE, **options: Any) -> Corrupted:
    draws = SOURCES[source]()
    return WAYS[way](dropout, **options)(canvas, draws.times(canvas), draws)


@every_way
@every_source
def test_a_share_of_the_documents_loses_all_the_words_of_its_prompt_and_nothing_else(way: str, source: str) -> None:
    """Documents decide by themselves, also those that share a row; what is no word, and what is no prompt, stays."""
    noised = corrupted(way, source)
    hidden = (noised.x_t == VOCAB.mask_id) & WORDS
    documents = torch.stack([hidden[:, :8].sum(1), hidden[:, 8:].sum(1)], 1)
    whole = torch.tensor([2, 3])
    assert ((documents == 0) | (documents == whole)).all()
    lost = documents == whole
    for each in (lost[:, 0], lost[:, 1]):
        assert abs(each.sum() - SHARE * len(each)) < SURPRISING * (SHARE * (1 - SHARE) * len(each)) ** 0.5
    assert abs(correlation(lost[:, 0].double(), lost[:, 1].double())) < SURPRISING
    untouched = ~PACKED.editable & ~hidden
    assert torch.equal(noised.x_t[untouched], PACKED.ids[untouched])
    assert noised.clean is PACKED


@every_way
@every_source
def test_all_other_noise_is_what_it_was(way: str, source: str) -> None:
    with_dropout, without = corrupted(way, source), corrupted(way, source, dropout=0.0)
    assert torch.equal(with_dropout.x_t[PACKED.editable], without.x_t[PACKED.editable])
    assert torch.equal(with_dropout.asked, without.asked) and torch.equal(with_dropout.t, without.t)
    if without.soft is not None:
        assert with_dropout.soft is not None
        assert all(torch.equal(a, b) for a, b in zip(with_dropout.soft, without.soft, strict=True))
    assert torch.equal(without.x_t[~PACKED.editable], PACKED.ids[~PACKED.editable])


@every_way
def test_one_number_per_slot_is_drawn_for_it_and_without_it_none(way: str) -> None:
    """So the noise of a run that knows nothing of it is bit for bit what it was."""
    calls = []
    for dropout in (0.0, SHARE):
        draws = PerDocument(3)
        WAYS[way](dropout)(PACKED, torch.full(PACKED.ids.shape, 0.5), draws)
        calls.append(draws._calls)
    assert calls[1] == calls[0] + 1


@every_way
def test_a_prompt_is_dropped_at_any_level_of_noise(way: str) -> None:
    noised = corrupted(way, "place")
    lost = ((noised.x_t == VOCAB.mask_id) & WORDS).any(1).double()
    assert abs(correlation(lost, noised.t[:, 4].double())) < SURPRISING


def test_it_does_not_matter_who_holds_a_row() -> None:
    """Two processes that share a batch drop the prompts that one would have dropped."""
    process = process_of(MaskedDiffusion)
    t = torch.full(PACKED.ids.shape, 0.5)
    together = process.corrupt(PACKED, t, PerPlace(0, 1, first=0, rows=600)).x_t
    halves = [Canvas(*(field[part] for field in PACKED)) for part in (slice(0, 250), slice(250, 600))]
    apart = [
        process.corrupt(half, t[: len(half.ids)], PerPlace(0, 1, first=first, rows=600)).x_t
        for half, first in zip(halves, (0, 250), strict=True)
    ]
    assert torch.equal(torch.cat(apart), together)


@every_way
@pytest.mark.parametrize(
    ("keep", "goes"), [(None, [*range(2, MARK)]), ([], [*range(14)]), ([4, MARK], [*{*range(14)} - {4, MARK}])]
)
def test_ids_that_are_kept_are_always_shown(way: str, keep: list[int] | None, goes: list[int]) -> None:
    """Without a list these are all that are no ordinary text; with one, those in the list and no others."""
    noised = corrupted(way, "place", dropout=1.0, prompt_keep=keep)
    given = ~PACKED.editable & (PACKED.segment > 0)
    gone = given & torch.isin(PACKED.ids, torch.tensor(goes))
    assert (noised.x_t[gone] == VOCAB.mask_id).all() and gone.any()
    assert torch.equal(noised.x_t[given & ~gone], PACKED.ids[given & ~gone])
    assert torch.equal(noised.x_t[PACKED.segment == 0], PACKED.ids[PACKED.segment == 0])
    assert torch.equal(process_of(MaskedDiffusion, prompt_keep=keep).prompt(PACKED), gone)


@pytest.mark.parametrize("kind", [*leaves(Process)], ids=lambda kind: kind.__name__)
def test_what_is_validated_and_walked_back_shows_every_prompt(kind: Any) -> None:
    process = process_of(kind, prompt_keep=[MARK])
    plain = process.plain
    assert plain.prompt_dropout == 0.0 and plain.plain is plain
    assert plain.prompt_keep == (MARK,)  # guidance takes away what training did
    canvas = mixed_batch(VOCAB, seeded(0))
    noised = plain.corrupt(canvas, PerDocument(0).times(canvas), PerDocument(0))
    assert torch.equal(noised.x_t[~canvas.editable], canvas.ids[~canvas.editable])


def test_dropout_alone_does_not_change_the_diffusion_that_is_measured() -> None:
    process = MaskedDiffusion(VOCAB, LogLinear(), UniformCount(), prompt_dropout=0.1)
    assert process.why_no_bound is None and process.plain == dataclasses.replace(process, prompt_dropout=0.0)
    assert dataclasses.replace(process, prompt_dropout=0.0).plain.hiding == UniformCount()


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_what_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(
        ValueError, match=r"process\.prompt_dropout=.* is no share of the documents: give a number from 0"
    ):
        process_of(MaskedDiffusion, share)


@pytest.mark.parametrize("wrong", [-1, 13, 99])
def test_what_is_no_token_is_refused(wrong: int) -> None:
    with pytest.raises(
        ValueError, match=rf"process\.prompt_keep has {wrong}, which is no token: give ids from 0 to 12"
    ):
        MaskedDiffusion(VOCAB, LogLinear(), prompt_keep=[1, wrong])
