"""Walks with a cache: what they compute, what they forget, and that a row never notices the rows beside it."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dllm_lightning.backbone import CannotRemember, ModernBert
from dllm_lightning.backbone.cache import Cache, Delayed, Dual, Prefix, Store, Vicinity
from dllm_lightning.model.denoiser import NetworkDenoiser
from dllm_lightning.noise import LogLinear
from dllm_lightning.process import MaskedDiffusion, Reading, UniformDiffusion
from dllm_lightning.sampler import Ancestral, Blockwise, Refine, Reveal, Sampler, Several
from dllm_lightning.sampler.undo import AtRandom
from dllm_lightning.types import Canvas
from tests.backbone.nets import BERT, K, masked_lm, modernbert
from tests.laws.parts import seeded, vocabulary
from tests.sampler.denoisers import blank, row_of

VOCAB = vocabulary(K, first_noise=3)
MASKED, UNIFORM = MaskedDiffusion(VOCAB, LogLinear()), UniformDiffusion(VOCAB, LogLinear())
CACHES = (Prefix(), Dual(), Vicinity(before=3, after=2), Delayed())
REFRESHED = (*CACHES, *(dataclasses.replace(cache, refresh_every=3) for cache in CACHES))
every_cache = pytest.mark.parametrize("cache", REFRESHED, ids=str)
PROMPTS, ANSWERS = (9, 2, 14, 6), (10, 12, 7, 12)  # a window reaches 4 slots to either side


class Call(NamedTuple):
    """What the network was given: rows, and the columns that it computed (None for all, as they were stored)."""

    rows: int
    columns: list[int] | None


@pytest.fixture(scope="module")
def backbone() -> ModernBert:
    """Of strong opinions, so that no token hangs on a rounding."""
    network = modernbert(sizes={"initializer_range": 0.3}, time_conditioning=True)
    torch.nn.init.normal_(network.time.outer.weight, std=0.3)  # type: ignore[union-attr]
    return network.eval()


@pytest.fixture
def calls(backbone: ModernBert, monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Every call with a store."""
    found: list[Call] = []
    encode = ModernBert.encode_anew

    def spied(self: ModernBert, inputs: Tensor, level: Tensor, segment: Tensor, store: Store) -> Tensor:
        found.append(Call(len(inputs), None if store.view is None else store.view.columns.tolist()))
        return encode(self, inputs, level, segment, store)

    monkeypatch.setattr(ModernBert, "encode_anew", spied)
    return found


class Listening(NetworkDenoiser):
    """Remembers every belief that it was asked for."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.heard: list[Tensor] = []

    def read(self, x_t: Tensor, t: Tensor, segment: Tensor, at: Tensor, reading: Reading) -> tuple[Tensor, ...]:
        pieces: list[Tensor] = []

        def listening(log_p_x0: Tensor, part: slice) -> tuple[Tensor, ...]:
            pieces.append(log_p_x0.clone())
            return reading(log_p_x0, part)

        found = super().read(x_t, t, segment, at, listening)
        self.heard.append(torch.cat(pieces))
        return found


def ragged() -> Canvas:
    """Rows of many lengths, padded on the left."""
    draw = torch.Generator().manual_seed(5)
    documents = []
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        ids = [*torch.randint(3, VOCAB.mask_id, (prompt,), generator=draw).tolist(), *[VOCAB.mask_id] * answer]
        documents.append((ids, [False] * prompt + [True] * answer))
    return Canvas.left_padded(documents, VOCAB.pad_id)


def infill() -> Canvas:
    """A hole in the middle of each row, at another place in each, and a few slots of prompt inside it."""
    ids = torch.randint(3, VOCAB.mask_id, (3, 26), generator=torch.Generator().manual_seed(2))
    editable = torch.zeros(3, 26, dtype=torch.bool)
    editable[0, 5:14] = editable[1, 9:20] = editable[2, [3, 4, 7, 8, 9, 15]] = True
    return Canvas(ids, editable, torch.ones_like(ids))


SAMPLERS: list[Sampler] = [
    Reveal(),
    Reveal(pace=Several(3)),
    Blockwise(inner=Reveal(pace=Several(2)), block=5, stop=False),
    Ancestral(steps=6),
]
every_walk = pytest.mark.parametrize("sampler", SAMPLERS, ids=["one a step", "three a step", "block by block", "drawn"])


@every_walk
@pytest.mark.parametrize("cache", CACHES, ids=str)
@pytest.mark.parametrize("canvas", [ragged(), infill()], ids=["ragged", "infill"])
def test_refreshed_at_every_step_it_says_what_no_cache_says(
    backbone: ModernBert, cache: Cache, sampler: Sampler, canvas: Canvas
) -> None:
    plain = Listening(backbone, MASKED)
    cached = Listening(backbone, MASKED, dataclasses.replace(cache, refresh_every=1))
    texts = [sampler.sample(denoiser, canvas, seeded(3)) for denoiser in (plain, cached)]
    assert torch.equal(*texts)
    assert plain.calls == cached.calls == len(plain.heard) > 3
    for ours, theirs in zip(cached.heard, plain.heard, strict=True):
        assert_close(ours, theirs, rtol=0, atol=3e-5)


@every_cache
@pytest.mark.parametrize("sampler", SAMPLERS[:3], ids=["one a step", "three a step", "block by block"])
@pytest.mark.parametrize("canvas", [ragged(), infill()], ids=["ragged", "infill"])
def test_a_row_among_others_becomes_the_text_of_the_row_alone(
    backbone: ModernBert, cache: Cache, sampler: Sampler, canvas: Canvas
) -> None:
    """Although the network computes the columns of all of them together, and rows end one after the other."""
    together = sampler.sample(NetworkDenoiser(backbone, MASKED, cache), canvas)
    for row in range(len(together)):
        alone = row_of(canvas, row)
        expected = sampler.sample(NetworkDenoiser(backbone, MASKED, cache), alone)
        assert torch.equal(together[row, canvas.segment[row] > 0], expected[0])


def test_packed_rows_are_written_like_documents_of_their_own(backbone: ModernBert) -> None:
    """Two documents in a row see nothing of each other, in the store neither."""
    one, two = (row_of(ragged(), row) for row in (0, 3))
    packed = Canvas(
        torch.cat([one.ids, two.ids], 1),
        torch.cat([one.editable, torch.zeros_like(two.editable)], 1),
        torch.cat([one.segment, two.segment + 1], 1),
    )
    for cache in CACHES:
        denoiser = NetworkDenoiser(backbone, MASKED, cache)
        text = Reveal().sample(denoiser, packed)
        assert torch.equal(text[:, : one.ids.shape[1]], Reveal().sample(denoiser, one))


@pytest.mark.parametrize(
    ("cache", "columns"),
    [
        (Prefix(), [*range(6, 12)]),
        (Dual(), [*range(6, 10)]),
        (Vicinity(before=2, after=1), [*range(4, 11)]),
        (Prefix(refresh_every=2), [*range(6, 12)]),
        (Dual(refresh_every=3), [*range(6, 10)]),
    ],
    ids=str,
)
def test_a_walk_computes_what_its_cache_says_and_nothing_else(
    backbone: ModernBert, calls: list[Call], cache: Cache, columns: list[int]
) -> None:
    """A hole of four slots in a row of twelve."""
    editable = torch.zeros(1, 12, dtype=torch.bool)
    editable[:, 6:10] = True
    canvas = Canvas(torch.full((1, 12), 5), editable, torch.ones(1, 12, dtype=torch.long))
    denoiser = NetworkDenoiser(backbone, MASKED, cache)
    Reveal().sample(denoiser, canvas)
    often = cache.refresh_every or 4
    assert calls == [Call(1, None if step % often == 0 else columns) for step in range(4)]
    assert denoiser.calls == 4


def test_a_delayed_token_is_computed_once_after_it_was_written(backbone: ModernBert, calls: list[Call]) -> None:
    canvas = row_of(ragged(), 0)
    steps = list(Reveal().trajectory(NetworkDenoiser(backbone, MASKED, Delayed()), canvas))
    written = [step.changed[0].nonzero().item() for step in steps]
    assert sorted(written) == [*range(9, 19)]
    for number, call in enumerate(calls):
        frozen = written[: max(0, number - 1)]
        expected = None if number == 0 else [column for column in range(9, 19) if column not in frozen]
        assert call == Call(1, expected)


def test_a_block_is_a_walk_of_its_own(backbone: ModernBert, calls: list[Call]) -> None:
    canvas = blank(8, prompt=3, vocab=VOCAB)
    denoiser = NetworkDenoiser(backbone, MASKED, Dual())
    Blockwise(inner=Reveal(), block=4, stop=False).sample(denoiser, canvas)
    first, second = ([Call(1, None), *[Call(1, [*range(lo, lo + 4)])] * 3] for lo in (3, 7))
    assert calls == first + second
    assert denoiser.calls == 8


def test_finished_rows_leave_the_store(backbone: ModernBert, calls: list[Call]) -> None:
    canvas = blank(4, 1, 2, prompt=3, vocab=VOCAB)
    denoiser = NetworkDenoiser(backbone, MASKED, Dual())
    Reveal().sample(denoiser, canvas)
    assert calls == [Call(3, None), Call(2, [3, 4, 5, 6]), Call(1, [3, 4, 5, 6]), Call(1, [3, 4, 5, 6])]
    walk = denoiser.within(canvas)
    at = canvas.editable.clone()
    for gone in (None, 1, 2):
        if gone is not None:
            at[gone] = False
        walk(canvas.ids, torch.ones(3), canvas.segment, at)
    assert {len(tensor) for tensor in walk.memory.store.keys.values()} == {1}  # type: ignore[union-attr]


def test_a_row_that_comes_back_is_read_anew(backbone: ModernBert, calls: list[Call]) -> None:
    canvas, plain = blank(4, 4, prompt=3, vocab=VOCAB), NetworkDenoiser(backbone, MASKED)
    walk = NetworkDenoiser(backbone, MASKED, Dual()).within(canvas)
    one, both = canvas.editable & torch.tensor([[True], [False]]), canvas.editable
    texts = [canvas.ids.clone() for _ in range(5)]
    for number, text in enumerate(texts[1:]):
        text[:, 4] = 20 + number
    found = [
        walk(text, torch.ones(2), canvas.segment, at)
        for text, at in zip(texts, (both, one, both, both, one & False), strict=True)
    ]
    assert calls == [Call(2, None), Call(1, [3, 4, 5, 6]), Call(2, None), Call(2, [3, 4, 5, 6])]
    assert_close(found[2], plain(texts[2], torch.ones(2), canvas.segment, both), rtol=0, atol=3e-5)
    assert found[4].shape == (0, K) and walk.calls == 4
    walk(texts[0], torch.ones(2), canvas.segment, both)  # after a call about nothing, nobody is known
    assert calls[-1] == Call(2, None)


@pytest.mark.parametrize("cache", REFRESHED, ids=str)
def test_walks_that_take_tokens_back_come_to_an_end_and_leave_the_rest_alone(
    backbone: ModernBert, cache: Cache
) -> None:
    canvas = ragged()
    for sampler in (Reveal(undo=AtRandom(0.5)), Ancestral(steps=5)):
        text = sampler.sample(NetworkDenoiser(backbone, MASKED, cache), canvas, seeded(1))
        assert not (text == VOCAB.mask_id).any()
        assert torch.equal(text[~canvas.editable], canvas.ids[~canvas.editable])


@pytest.mark.parametrize("sampler", [Ancestral(steps=6), Refine(steps=6)], ids=lambda sampler: type(sampler).__name__)
def test_a_network_that_is_told_the_level_is_out_of_date_between_refreshes_only(
    backbone: ModernBert, sampler: Sampler
) -> None:
    """Every call has another noise level, which all slots are told: stored ones were told an earlier one."""
    canvas, apart = ragged(), {}
    for often in (None, 1):
        plain, cached = Listening(backbone, UNIFORM), Listening(backbone, UNIFORM, Dual(refresh_every=often))
        for denoiser in (plain, cached):
            sampler.sample(denoiser, canvas, seeded(4))
        pairs = zip(cached.heard[:2], plain.heard[:2], strict=True)
        apart[often] = [(ours.exp() - theirs.exp()).abs().max().item() for ours, theirs in pairs]
    assert max(apart[1]) < 3e-5 and apart[None][0] < 3e-5 < apart[None][1]


def test_every_walk_begins_with_an_empty_memory_and_adds_to_the_same_count(backbone: ModernBert) -> None:
    canvas, denoiser = blank(3, prompt=3, vocab=VOCAB), NetworkDenoiser(backbone, MASKED, Dual())
    prompts = [canvas._replace(ids=torch.where(canvas.editable, canvas.ids, fill)) for fill in (7, 9, 7)]
    texts = [Reveal().sample(denoiser, prompt) for prompt in prompts]
    assert denoiser.calls == 9
    assert torch.equal(texts[0][:, 3:], texts[2][:, 3:])
    walks = [denoiser.within(canvas) for _ in range(2)]
    assert walks[0].memory is not walks[1].memory is not None
    walks[0](canvas.ids, torch.ones(1), canvas.segment, canvas.editable)
    assert denoiser.calls == walks[0].calls == walks[1].calls == 10


def test_outside_of_a_walk_nothing_is_remembered(backbone: ModernBert, calls: list[Call]) -> None:
    canvas, denoiser = blank(3, prompt=3, vocab=VOCAB), NetworkDenoiser(backbone, MASKED, Dual())
    asked = (canvas.ids, torch.ones(1), canvas.segment, canvas.editable)
    assert_close(denoiser(*asked), NetworkDenoiser(backbone, MASKED)(*asked), rtol=0, atol=0)
    assert not calls


def test_a_network_that_cannot_remember_is_refused_before_the_walk() -> None:
    with pytest.raises(CannotRemember, match=r"MaskedLM keeps no keys and values"):
        NetworkDenoiser(masked_lm(BERT), MASKED, Dual())
