"""The divergence between two beliefs: torch's own, both ways, over the states alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import kl_div
from torch.testing import assert_close

from dllm_lightning.loss import Consistency

STATES, K = 9, 11


def belief(seed: int, sharpness: float = 1.0) -> Tensor:
    """Of 7 slots over 9 states; the last two ids are none."""
    logits = sharpness * torch.randn(7, K, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    logits[:, STATES:] = -torch.inf
    return logits.log_softmax(-1)


@pytest.mark.parametrize("sharpness", [0.1, 1.0, 30.0])
def test_both_directions_are_the_divergences_of_torch(sharpness: float) -> None:
    student, teacher = belief(0, sharpness), belief(1, sharpness)
    inside = [student[:, :STATES], teacher[:, :STATES]]
    backward = kl_div(inside[1], inside[0], log_target=True, reduction="none").sum(-1)
    forward = kl_div(inside[0], inside[1], log_target=True, reduction="none").sum(-1)
    assert_close(Consistency(kl="backward")(student, teacher), backward)
    assert_close(Consistency(kl="forward")(student, teacher), forward)
    assert (backward > 0).all() and (forward > 0).all()


@pytest.mark.parametrize("kl", ["backward", "forward"])
def test_agreement_costs_nothing_and_pulls_nowhere(kl: str) -> None:
    logits = torch.randn(7, K, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    student = logits.index_fill(1, torch.tensor([9, 10]), -torch.inf).log_softmax(-1)
    nats = Consistency(kl=kl)(student, student.detach())  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad(nats.sum(), logits)
    assert_close(nats, torch.zeros(7, dtype=torch.float64), rtol=0, atol=1e-15)
    assert_close(gradient, torch.zeros_like(logits), rtol=0, atol=1e-15)


@pytest.mark.parametrize("kl", ["backward", "forward"])
def test_the_gradient_is_the_one_in_closed_form_and_finite_where_no_state_is(kl: str) -> None:
    """In the logits: p (log p - log q - KL) backward, p - q forward."""
    logits = torch.randn(7, K, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    student, teacher = logits.index_fill(1, torch.tensor([9, 10]), -torch.inf).log_softmax(-1), belief(1)
    nats = Consistency(kl=kl)(student, teacher)  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad(nats.sum(), logits)
    p, q = student.detach().exp(), teacher.exp()
    surplus = torch.nan_to_num(student.detach() - teacher) - nats.detach()[:, None]
    assert_close(gradient, p * surplus if kl == "backward" else p - q)
