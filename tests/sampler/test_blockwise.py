"""Block by block: the public loop token for token, ends, uneven rows, and what the network is told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_lightning.model.denoiser import NetworkDenoiser
from dllm_lightning.sampler import Ancestral, Blockwise, Guided, LeftToRight, Refine, Reveal, Several, Threshold
from dllm_lightning.types import Canvas, Step
from tests.laws.parts import seeded, vocabulary
from tests.sampler.denoisers import Fixed, LittleNetwork, Oracle, blank, plain, row_of, uniform

VOCAB = vocabulary(11)
END = VOCAB.eos_id


def network(seed: int = 0, kind: Any = plain) -> NetworkDenoiser:
    return NetworkDenoiser(LittleNetwork(VOCAB, seed), kind(VOCAB))  # type: ignore[arg-type]


def lladas_loop(seed: int, canvas: Canvas, steps: int, block: int, guidance: float = 0.0) -> Tensor:
    """Semi-autoregressive low-confidence remasking on one row, with even shares per block and optional guidance."""
    net, ids = LittleNetwork(VOCAB, seed), canvas.ids.clone()
    answer = canvas.editable[0].nonzero().flatten().tolist()
    given = ~canvas.editable

    def beliefs(seen: Tensor) -> Tensor:
        logits = net(seen, torch.zeros(seen.shape), canvas.segment, torch.arange(seen.shape[1]))
        logits[:, VOCAB.mask_id] = logits[:, VOCAB.length :] = -torch.inf
        return logits

    for start in range(0, len(answer), block):
        slots = answer[start : start + block]
        shares = [len(slots) // steps + (step < len(slots) % steps) for step in range(steps)]
        for share in shares:
            logits = beliefs(ids)
            if guidance:
                free = beliefs(torch.where(given, VOCAB.mask_id, ids))
                logits = free + (guidance + 1) * (logits - free)
                logits[:, VOCAB.mask_id] = logits[:, VOCAB.length :] = -torch.inf
            sure, token = logits.softmax(-1).max(-1)
            open_slots = torch.full_like(sure, -torch.inf)
            for slot in slots:
                if ids[0, slot] == VOCAB.mask_id:
                    open_slots[slot] = sure[slot]
            for slot in open_slots.topk(share).indices.tolist():
                ids[0, slot] = token[slot]
    return ids


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("steps", "block"), [(4, 4), (2, 4), (1, 6), (3, 5), (12, 12), (1, 1)])
def test_blocks_are_lladas_loop_token_for_token(seed: int, steps: int, block: int) -> None:
    canvas = blank(12, seed=seed)
    ours = Blockwise(Reveal(steps), block, stop=False).sample(network(seed), canvas)
    assert torch.equal(ours, lladas_loop(seed, canvas, steps, block))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("steps", "block", "weight"), [(4, 4, 0.5), (3, 12, 2.0), (2, 5, 1.0)])
def test_guidance_is_lladas_loop_token_for_token(seed: int, steps: int, block: int, weight: float) -> None:
    canvas = blank(12, seed=seed)
    ours = Guided(Blockwise(Reveal(steps), block, stop=False), weight).sample(network(seed), canvas)
    assert torch.equal(ours, lladas_loop(seed, canvas, steps, block, weight))
    assert not torch.equal(ours, lladas_loop(seed, canvas, steps, block, weight + 50.0))


def test_blocks_of_one_slot_are_autoregression_and_of_all_slots_no_blocks() -> None:
    canvas = blank(9, 5, seed=3)
    alone = Blockwise(Reveal(), 1, stop=False).sample(network(3), canvas)
    assert torch.equal(alone, Reveal(order=LeftToRight()).sample(network(3), canvas))
    assert torch.equal(
        Blockwise(Reveal(), 9, stop=False).sample(network(3), canvas), Reveal().sample(network(3), canvas)
    )


@pytest.mark.parametrize("inner", [Reveal(2), Reveal(pace=Threshold(0.3)), Ancestral(3), Refine()], ids=str)
def test_rows_have_their_own_blocks_and_the_last_may_be_short(inner: Any) -> None:
    kind = uniform if isinstance(inner, Refine) else plain
    canvas = blank(7, 2, 11, 0)
    x = kind(VOCAB).prior(canvas, seeded(0))
    for step in Blockwise(inner, 4, stop=False).trajectory(network(kind=kind), canvas, seeded(0)):
        assert torch.equal(step.changed, step.x != x)
        number = torch.where(canvas.editable, (canvas.editable.cumsum(1) - 1) // 4, -1)
        assert len({*number[step.changed].tolist()}) <= 1  # in one block
        x = step.x
    assert not (x[canvas.editable] == VOCAB.mask_id).any()


def test_ragged_rows_are_written_as_they_would_be_alone() -> None:
    canvas = blank(7, 2, 11, 1)
    for sampler in (Blockwise(Reveal(2), 4), Guided(Blockwise(Reveal(2), 4), 1.5), Guided(Reveal(), 1.0)):
        together = sampler.sample(network(), canvas)
        for index in range(4):
            alone = sampler.sample(network(), row_of(canvas, index))
            assert torch.equal(together[index, canvas.segment[index] > 0], alone[0])


@pytest.mark.parametrize("kind", [plain, uniform])
def test_a_row_that_has_ended_asks_no_more_and_is_filled_with_ends(kind: Any) -> None:
    canvas = blank(12, 12, prompt=0)
    truth = torch.full((2, 12), 5)
    truth[0, 5] = END  # in the second block of four
    asked = []

    class Asked(Oracle):
        def table(self, x_t: Tensor, t: Tensor, at: Tensor) -> Tensor:
            asked.append(at.sum(1).tolist())
            return super().table(x_t, t, at)

    inner = Reveal(1) if kind is plain else Refine(steps=1, max_steps=1)
    steps = [*Blockwise(inner, 4).trajectory(Asked(truth, kind(VOCAB)), canvas, seeded(0))]
    assert asked == [[4, 4], [4, 4], [0, 4]]
    assert steps[-1].x.tolist() == [[5, 5, 5, 5, 5, END, 5, 5, END, END, END, END], [5] * 12]
    assert steps[1].changed[0, 8:].any() and (steps[1].confidence[0, 8:] == steps[1].changed[0, 8:].float()).all()
    whole = Blockwise(inner, 4, stop=False).sample(Oracle(truth, kind(VOCAB)), canvas, seeded(0))
    assert torch.equal(whole, truth)


def test_the_network_is_told_how_much_of_the_whole_text_is_noise() -> None:
    told = []

    class Told(Fixed):
        def table(self, x_t: Tensor, t: Tensor, at: Tensor) -> Tensor:
            told.append(t.tolist())
            return super().table(x_t, t, at)

    canvas = blank(8, 6, prompt=0)
    belief = Told(torch.zeros(8, VOCAB.size).log_softmax(-1), plain(VOCAB))
    steps: list[Step] = [*Blockwise(Reveal(pace=Several(2)), 4, stop=False).trajectory(belief, canvas, seeded(0))]
    assert told == [
        [1.0, 1.0],
        [6 / 8, pytest.approx(4 / 6)],
        [4 / 8, pytest.approx(2 / 6)],
        [2 / 8, pytest.approx(0.0)],
    ]
    assert [step.t for step in steps] == pytest.approx([1.0, 10 / 14, 6 / 14, 2 / 14]) and steps[-1].s == 0.0


def test_guidance_keeps_the_ids_it_is_told_to_keep_and_never_sees_more_than_the_prompt() -> None:
    """The second half of the batch shows masks for what was given, but for the ids to keep; padding stays."""
    seen = []

    class Seen(Fixed):
        def table(self, x_t: Tensor, t: Tensor, at: Tensor) -> Tensor:
            seen.append(x_t.clone())
            return super().table(x_t, t, at)

    canvas = blank(3, 2, prompt=4, seed=1)
    kept = int(canvas.ids[0, 1])
    belief = Seen(torch.zeros(7, VOCAB.size).log_softmax(-1), plain(VOCAB))
    Guided(Reveal(), 1.0, keep=[kept]).sample(belief, canvas)
    for state in seen:
        with_prompt, without = state.chunk(2)
        given = ~canvas.editable & (canvas.segment > 0) & (canvas.ids != kept)
        assert (without[given] == VOCAB.mask_id).all() and torch.equal(without[~given], with_prompt[~given])
    once = len(seen)
    Guided(Reveal(), 0.0).sample(belief, canvas)
    assert all(len(state) == 2 for state in seen[once:])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Blockwise(block=0), "sampler.block=0"),
        (lambda: Blockwise(Guided()), "guidance goes around them"),
        (lambda: Blockwise(Blockwise()), "blocks have no blocks"),
        (lambda: Guided(weight=-1.0), "sampler.weight=-1.0"),
        (lambda: Guided(keep=[-2]), "sampler.keep="),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def test_a_wrapper_refuses_what_its_inner_sampler_refuses() -> None:
    for sampler in (Blockwise(), Guided(), Guided(Blockwise())):
        assert "Reveal walks back through MaskedDiffusion" in str(sampler.refuses(uniform(VOCAB)))
        assert sampler.refuses(plain(VOCAB)) is None
