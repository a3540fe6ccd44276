"""AdamW: the shape of the learning rate, what decays, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from dllm_lightning.model import AdamW
from tests.model.parts import module


def rates(optimizer: AdamW, steps: int) -> list[float]:
    """The learning rate at every step of a run, as a share of the highest, and once after it."""
    adamw = optimizer.optimizer(nn.Linear(2, 2))
    schedule = optimizer.schedule(adamw, steps)
    found = []
    for _ in range(steps + 1):
        found.append(adamw.param_groups[0]["lr"] / optimizer.lr)
        adamw.step()
        schedule.step()
    return found


def test_warm_up_rises_in_a_straight_line_by_steps_or_by_a_fraction_of_the_run() -> None:
    straight = [step / 10 for step in range(1, 11)]  # the first step learns already
    assert rates(AdamW(warmup=10), 100)[:10] == pytest.approx(straight)
    assert rates(AdamW(warmup=0.1), 100)[:10] == pytest.approx(straight)
    assert rates(AdamW(warmup=0), 100)[0] == 1.0


def test_cosine_falls_to_nothing_at_the_last_step() -> None:
    found = rates(AdamW(warmup=20), 100)[20:]
    assert found == pytest.approx([0.5 * (1 + math.cos(math.pi * k / 80)) for k in range(81)], abs=1e-9)


def test_linear_falls_in_a_straight_line_and_constant_stays() -> None:
    assert rates(AdamW(warmup=20, decay="linear"), 100)[20:] == pytest.approx([1 - k / 80 for k in range(81)], abs=1e-9)
    assert rates(AdamW(warmup=20, decay="constant"), 100)[20:] == [1.0] * 81


def test_matrices_decay_and_biases_and_norms_do_not() -> None:
    """Every trainable parameter is in exactly one group; tied ones once, frozen ones not at all."""
    model = module()
    model.backbone.layers[0].requires_grad_(False)
    adamw = AdamW(weight_decay=0.1).optimizer(model)
    decaying, still = (group["params"] for group in adamw.param_groups)
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.1, 0.0]
    assert {p.ndim for p in decaying} == {2} and {p.ndim for p in still} == {1}
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    assert sorted(trainable) == sorted(id(p) for p in decaying + still)


def test_the_fused_kernel_is_taken_where_there_is_one() -> None:
    assert AdamW().optimizer(nn.Linear(2, 2)).defaults["fused"] is True
    meta = nn.Linear(2, 2, device="meta")
    assert AdamW().optimizer(meta).defaults["fused"] is False


def test_its_numbers_reach_torch() -> None:
    group = AdamW(lr=3e-3, betas=(0.8, 0.9), eps=1e-5).optimizer(nn.Linear(2, 2)).param_groups[0]
    assert (group["lr"], group["betas"], group["eps"]) == (3e-3, (0.8, 0.9), 1e-5)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("decay", "cosin"),
        ("lr", 0.0),
        ("lr", -1e-3),
        ("warmup", -1),
        ("betas", (0.9, 1.0)),
        ("betas", (0.9,)),
        ("eps", -1e-8),
        ("weight_decay", -0.1),
    ],
)
def test_values_that_cannot_train_are_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"optimizer\.{option}="):
        AdamW(**{option: value})


def test_a_run_without_an_end_has_no_shape_for_its_learning_rate() -> None:
    """Neither steps nor epochs were limited."""
    adamw = AdamW()
    with pytest.raises(ValueError, match=r"trainer\.max_steps"):
        adamw.schedule(adamw.optimizer(nn.Linear(2, 2)), torch.inf)
    constant = AdamW(decay="constant", warmup=2)
    assert constant.schedule(constant.optimizer(nn.Linear(2, 2)), torch.inf) is not None
