"""One column of the beliefs, made in the memory of the logits: the same numbers and gradients as all of them."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from dllm_lightning.noise import LogLinear
from dllm_lightning.process import MaskedDiffusion, Process, blocks
from dllm_lightning.types import Slots
from tests.laws.parts import seeded, vocabulary

VOCAB = vocabulary(11)
PLAIN = MaskedDiffusion(VOCAB, LogLinear())
X0 = torch.tensor([0, 3, 8, 8, 1, 5])
SLOTS = Slots(X0, torch.full_like(X0, VOCAB.mask_id), torch.linspace(0.2, 1, len(X0)), torch.arange(len(X0)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rows", [1, 4, 1000], ids="{} rows at a time".format)
def test_the_true_column_and_its_gradient_are_those_of_all_beliefs(
    dtype: torch.dtype, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(blocks.BLOCK, "cpu", 11 * rows)
    logits = (9 * torch.randn(len(X0), 11, generator=seeded(0))).to(dtype)
    logits[:, VOCAB.mask_id] = 100
    outer = torch.randn(len(X0), 1, generator=seeded(1))
    whole, ours = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    expected = PLAIN.log_p_x0(whole, SLOTS).gather(1, X0[:, None])
    truth = PLAIN.log_truth(ours, SLOTS)
    assert truth.dtype == expected.dtype
    assert_close(truth, expected)
    (outer * expected).sum().backward()
    (outer * truth).sum().backward()
    assert_close(ours.grad, whole.grad)


def test_nobody_asks_and_nothing_is_said() -> None:
    nothing = Slots(*(field[:0] for field in SLOTS))
    logits = torch.zeros(0, 11, requires_grad=True)
    PLAIN.log_truth(logits, nothing).sum().backward()
    assert logits.grad is not None and logits.grad.shape == (0, 11)


def test_a_process_that_knows_no_short_cut_reads_the_column_off() -> None:
    logits = torch.randn(len(X0), 11, generator=seeded(0))
    assert_close(Process.log_truth(PLAIN, logits.clone(), SLOTS), PLAIN.log_truth(logits.clone(), SLOTS))
