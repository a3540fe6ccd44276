"""A network behind a process: who is asked, in which mode, and by the rules of which corruption."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from dllm_lightning.model.denoiser import NetworkDenoiser
from dllm_lightning.noise import LogLinear
from dllm_lightning.process import MaskedDiffusion, Replace
from dllm_lightning.sampler import Reveal
from tests.laws.parts import vocabulary
from tests.sampler.denoisers import LittleNetwork, blank, plain

VOCAB = vocabulary(11)


def denoiser() -> NetworkDenoiser:
    return NetworkDenoiser(LittleNetwork(VOCAB), plain(VOCAB))  # type: ignore[arg-type]


def test_beliefs_stand_in_row_order_whichever_rows_are_asked() -> None:
    canvas = blank(5, 4, 6)
    at = canvas.editable.clone()
    at[1] = False
    at[0, -2] = False
    everywhere = denoiser()(canvas.ids, torch.ones(3), canvas.segment, torch.ones_like(at))
    asked = denoiser()(canvas.ids, torch.ones(3), canvas.segment, at)
    assert_close(asked, everywhere[at.flatten()])
    assert (asked[:, VOCAB.mask_id] == -torch.inf).all()


def test_finished_rows_leave_the_work() -> None:
    asking = denoiser()
    Reveal().sample(asking, blank(4, 1, 2))
    assert asking.backbone.rows == [3, 2, 1, 1]  # type: ignore[comparison-overlap]
    assert asking.calls == 4


def test_a_question_about_nothing_costs_no_network_call() -> None:
    asking, canvas = denoiser(), blank(3)
    assert asking(canvas.ids, torch.ones(1), canvas.segment, torch.zeros_like(canvas.editable)).shape == (0, VOCAB.size)
    assert asking.calls == 0


def test_a_corruption_that_is_no_diffusion_is_walked_back_as_the_plain_one() -> None:
    trained = MaskedDiffusion(VOCAB, LogLinear(0.15, 0.99), replace=Replace(0.8, 0.1, 0.1))
    process = NetworkDenoiser(LittleNetwork(VOCAB), trained).process  # type: ignore[arg-type]
    assert process == trained.plain and process.why_no_bound is None


def test_the_network_is_put_into_evaluation_mode_and_keeps_no_graph() -> None:
    network = LittleNetwork(VOCAB).train()
    network.head.requires_grad_()
    asking, canvas = NetworkDenoiser(network, plain(VOCAB)), blank(3)  # type: ignore[arg-type]
    assert not network.training
    assert not asking(canvas.ids, torch.ones(1), canvas.segment, canvas.editable).requires_grad
