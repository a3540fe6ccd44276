"""The short way from logits to nats: the same numbers and the same gradients as through the whole belief."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from dllm_lightning.loss import CE, Elbo, Loss, MaskedCE, SymmetricKL, WeightedCE
from dllm_lightning.noise import LogLinear
from dllm_lightning.process import MaskedDiffusion, Process, UniformCount, UniformDiffusion
from dllm_lightning.types import Slots
from tests.laws.parts import seeded, vocabulary

VOCAB = vocabulary(11, first_noise=2)
MASKED = [MaskedDiffusion(VOCAB, LogLinear()), MaskedDiffusion(VOCAB, LogLinear(), UniformCount())]
UNIFORM = [UniformDiffusion(VOCAB, LogLinear()), UniformDiffusion(VOCAB, LogLinear(0.05, 0.95))]
OPTIONS: list[Loss] = [
    Elbo(),
    MaskedCE(),
    WeightedCE(max_weight=3.0),
    WeightedCE(weight="level"),
    CE(),
    CE(slots="all"),
    SymmetricKL(),
    SymmetricKL(form="onehot", view_scale="kappa"),
    SymmetricKL(form="nelbo"),
]
PAIRS = [(loss, process) for loss in OPTIONS for process in MASKED + UNIFORM if isinstance(process, loss.accepts)]


@pytest.mark.parametrize(("loss", "process"), PAIRS, ids=str)
def test_the_short_way_gives_the_nats_and_the_gradients_of_the_long_one(loss: Loss, process: Process) -> None:
    x0 = torch.randint(1, 9, (12,), generator=seeded(0))
    noise = torch.randint(1, 9, (12,), generator=seeded(1))
    shown = torch.where(torch.arange(12) % 3 == 0, x0, noise)
    x_t = torch.full_like(x0, VOCAB.mask_id) if isinstance(process, MaskedDiffusion) else shown
    slots = Slots(x0, x_t, torch.linspace(0.05, 1.0, 12), torch.arange(12))
    logits, outer = 3 * torch.randn(12, 11, generator=seeded(2)), torch.randn(12, generator=seeded(3))
    whole, ours = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    expected = loss(process.log_p_x0(whole, slots), slots, process)
    nats = loss.of_logits(ours, slots, process)
    assert_close(nats, expected, rtol=1e-5, atol=1e-6)
    (outer * expected).sum().backward()
    (outer * nats).sum().backward()
    assert_close(ours.grad, whole.grad, rtol=1e-4, atol=1e-5)


def test_every_loss_is_among_these() -> None:
    assert {type(loss) for loss in OPTIONS} >= {Elbo, MaskedCE, WeightedCE, CE, SymmetricKL}
