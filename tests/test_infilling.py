"""Texts with gaps are filled by any sampler, under any noise, beside any others; and every walk comes to its end."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from dllm_lightning.backbone.chunked import Score
from dllm_lightning.data import Turns
from dllm_lightning.data.asked import Asked, Question
from dllm_lightning.data.gaps import gapped
from dllm_lightning.data.infill import Infill
from dllm_lightning.data.toy import toy_tokenizer
from dllm_lightning.model.denoiser import NetworkDenoiser
from dllm_lightning.noise import LogLinear
from dllm_lightning.process import MaskedDiffusion, Process, UniformDiffusion
from dllm_lightning.sampler import Blockwise, Guided, Reveal, Sampler
from dllm_lightning.speaker import Speaker, TooLong
from dllm_lightning.types import Vocab
from tests.conf.configurations import composed, names
from tests.sampler.denoisers import LittleNetwork, in_pieces

ASKED = [{"role": "user", "content": "What is [MASK] [SEP]?"}]
TEMPLATE = Turns(toy_tokenizer())
VOCAB = Vocab.of(TEMPLATE.tokenizer, end_id=TEMPLATE.end_id)
END, MASK = TEMPLATE.end_id, TEMPLATE.tokenizer.mask_token_id


def infill(source: str, messages: list[dict[str, str]] | None = None) -> Infill:
    return Infill(source, gapped(source), messages or [])


MIXED: list[Asked] = [
    infill("The [[4]] of France is [[1]]."),
    infill("[[2]] is [[3]]", ASKED),
    Question(ASKED),
    infill("[[1]]"),
    infill(r"\[[ [MASK] [[1]][[2]], [unused3] [[1]] said she", ASKED),
]
"""Rows of many widths, with gaps of many widths at many places; one has none."""


class Wants(nn.Module):
    """Wants the same token everywhere, and of the others the later ones more."""

    def __init__(self, token: int) -> None:
        super().__init__()
        self.logits = torch.linspace(0, 1, VOCAB.size)
        self.logits[token] = 50.0

    def forward(self, ids: Tensor, t: Tensor, segment: Tensor, at: Tensor, score: Score | None = None) -> Tensor:
        logits = self.logits.repeat(len(at), 1)
        return logits if score is None else in_pieces(score, logits)


def writer(sampler: Sampler, kind: Any = MaskedDiffusion, network: Any = None, positions: int | None = None) -> Speaker:
    denoiser = NetworkDenoiser(network or LittleNetwork(VOCAB), kind(VOCAB, LogLinear()))
    return Speaker(denoiser, TEMPLATE, sampler, 6, torch.Generator().manual_seed(0), positions)


@cache
def shipped(name: str) -> Any:
    """A sampler of conf/, in a few steps."""
    cfg = composed(f"sampler={name}", entry="generate").sampler
    for each in (cfg, cfg.get("inner", {})):
        if isinstance(each.get("steps"), int):
            each.steps = min(each.steps, 6)
    return instantiate(cfg)


def every_walk() -> Any:
    """Every sampler under every noise that it undoes; with the network that always wants a mask, and one that always
    wants to end."""
    kinds: tuple[type[Process], ...] = (MaskedDiffusion, UniformDiffusion)
    samplers = [(name, shipped(name)) for name in names("sampler")]
    samplers += [("blocks of 2", Blockwise(block=2)), ("guided blocks", Guided(Blockwise(block=2), 2.0))]
    pairs = itertools.product(samplers, kinds)
    return pytest.mark.parametrize(
        ("sampler", "kind"),
        [
            pytest.param(sampler, kind, id=f"{name} {kind.__name__}")
            for (name, sampler), kind in pairs
            if sampler.reason_against(kind(VOCAB, LogLinear())) is None
        ],
    )


@every_walk()
def test_only_gaps_are_written_all_of_them_and_no_mask_is_left(sampler: Sampler, kind: Any) -> None:
    for network in (LittleNetwork(VOCAB), Wants(MASK), Wants(END)):
        speaker = writer(sampler, kind, network)
        canvas, last = speaker.canvas(MIXED), []
        answers = speaker.answers(MIXED, lambda _, step: last.append(step.x))  # noqa: B023
        assert torch.equal(last[-1][~canvas.editable], canvas.ids[~canvas.editable])
        for asked, answer in zip(MIXED, answers, strict=True):
            assert len(answer.ids) == asked.slots(6) and MASK not in answer.ids
            assert END not in answer.ids[: len(answer.ids) - asked.ending(6)]
            if isinstance(asked, Infill):
                pieces, filled = asked.text.pieces, answer.filled
                assert filled is not None and len(filled) == len(asked.text.gaps)
                assert answer.text == pieces[0] + "".join(a + b for a, b in zip(filled, pieces[1:], strict=True))


@pytest.mark.parametrize("sampler", [Reveal(), Reveal(steps=2), Blockwise(block=3)], ids=str)
def test_a_row_does_not_notice_the_others(sampler: Sampler) -> None:
    alone = [writer(sampler).answers([asked])[0] for asked in MIXED]
    assert [answer.ids for answer in writer(sampler).answers(MIXED)] == [answer.ids for answer in alone]


@pytest.mark.parametrize(
    "sampler", [Reveal(), Blockwise(block=2), Guided(Blockwise(block=2)), shipped("ancestral")], ids=str
)
def test_who_wants_to_end_can_do_so_only_where_the_answer_ends(sampler: Sampler) -> None:
    """Else, blocks that stop at an end would leave all later gaps empty."""
    asked = infill("[[3]] hot [[2]] cold [[4]]", ASKED)
    (answer,) = writer(sampler, network=Wants(END)).answers([asked])
    assert END not in answer.ids[:5] and answer.ids[5:] == [END] * 4
    assert answer.filled is not None and answer.filled[-1] == "" and all(answer.filled[:2]) and answer.tokens == 5
    (answer,) = writer(sampler, network=Wants(END)).answers([infill("[[3]] hot [[2]] cold [[4]]")])
    assert END not in answer.ids and answer.tokens == 9  # a text by itself is no answer


def test_a_gap_alone_is_written_as_the_answer_would_be() -> None:
    (filled,), (answer,) = (
        writer(Reveal()).answers([infill("[[6]]", ASKED)]),
        writer(Reveal()).answers([Question(ASKED)]),
    )
    assert (filled.text, filled.ids) == (answer.text, answer.ids) and filled.filled == [answer.text]


# whatever is asked, it comes to an end


@every_walk()
@pytest.mark.parametrize("length", [1, 6])
def test_every_walk_ends_without_a_mask_whatever_the_model_wants(sampler: Sampler, kind: Any, length: int) -> None:
    special = Question([{"role": "user", "content": "[MASK] [SEP] [unused1] [CLS] [PAD] [MASK]"}])
    for wish in (MASK, TEMPLATE.tokenizer.pad_token_id):
        speaker = writer(sampler, kind, Wants(wish))
        speaker = Speaker(speaker.denoiser, TEMPLATE, sampler, length, speaker.generator)
        canvas = speaker.canvas([special])
        assert canvas.ids[~canvas.editable].tolist().count(MASK) == 0
        (answer,) = speaker.answers([special])
        assert len(answer.ids) == length and MASK not in answer.ids and "mask" not in answer.text.lower()


def test_one_step_writes_everything() -> None:
    (answer,) = writer(Reveal(steps=1)).answers([Question(ASKED)])
    assert answer.steps == answer.network_calls == 1 and MASK not in answer.ids


def test_a_row_may_be_as_long_as_the_network_reads_and_no_longer() -> None:
    asked = Question([{"role": "user", "content": "a " * 14}])
    assert len(writer(Reveal(), positions=24).canvas([asked]).ids[0]) == 24
    with pytest.raises(
        TooLong, match=r"length=6 slots for its answer make 24 tokens, and this network reads 23 at most"
    ):
        writer(Reveal(), positions=23).answers([asked])
    with pytest.raises(TooLong, match=r"its 999999999 tokens to fill in make 999999999 tokens"):
        writer(Reveal(), positions=23).answers([infill("[[999999999]]")])
