"""A step without a finite loss or gradient leaves weights and moments as they were; too many of them are explained."""

from __future__ import annotations

import itertools
import os
import socket
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.multiprocessing import start_processes

from dllm_lightning.callbacks.bad_steps import BadSteps, NotFinite
from dllm_lightning.model import MDM
from tests.model.parts import Data, canvas, documents, module, quiet

BATCHES = [canvas(documents(4, seed=seed)) for seed in range(6)]


class Sick(MDM):
    """Whose loss is not finite in the rows that begin with `poison`, from step `since` until step `until`."""

    poison: float | None = None
    since, until = 2, 4

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        sick = self.poison is not None and self.since <= self.global_step < self.until
        return loss * self.poison if sick and self.global_rank == self.trainer.world_size - 1 else loss


class Weights(L.Callback):
    """Remembers a weight, and its moment, after every step."""

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        weight = pl_module.backbone.network.decoder.bias
        moments = trainer.optimizers[0].state[weight]
        self.seen.append((weight.detach().clone(), moments["exp_avg"].clone()))


def fit(folder: Path, poison: float | None, limit: int, batches: list[Any] = BATCHES, **options: Any) -> Weights:
    weights, model = Weights(), module(kind=Sick)
    model.poison = poison
    ranks = [batches] * int(options.get("devices", 1))
    quiet(folder, callbacks=[weights, BadSteps(limit)], **options).fit(model, Data(*ranks))
    return weights


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_bad_step_moves_nothing_and_the_next_good_one_goes_on(tmp_path: Path, poison: float) -> None:
    """Two of six steps are bad; noise, data and learning rate move on, and the count is logged."""
    model, weights, bad = module(kind=Sick), Weights(), BadSteps(3)
    model.poison = poison
    trainer = quiet(tmp_path, callbacks=[weights, bad])
    trainer.fit(model, Data(BATCHES))
    assert trainer.global_step == 6 and (bad.total, bad.in_a_row) == (2, 0)
    assert float(trainer.callback_metrics["train/bad_steps"]) == 2
    seen = weights.seen
    for before, after in itertools.pairwise(seen):
        moved = not torch.equal(before[0], after[0])
        assert moved == (not torch.equal(before[1], after[1]))
    changed = [not torch.equal(seen[step - 1][0], seen[step][0]) for step in range(1, 6)]
    assert changed == [True, False, False, True, True]
    assert all(torch.isfinite(weight).all() for weight, _ in seen)


def test_without_a_bad_step_nothing_is_logged_and_nothing_differs(tmp_path: Path) -> None:
    with_it = fit(tmp_path, None, 1).seen
    without, model = Weights(), module(kind=Sick)
    quiet(tmp_path, callbacks=[without]).fit(model, Data(BATCHES))
    assert all(torch.equal(one[0], other[0]) for one, other in zip(with_it, without.seen, strict=True))


def test_too_many_in_a_row_stop_the_run_with_step_and_cause(tmp_path: Path) -> None:
    with pytest.raises(NotFinite) as stopped:
        fit(tmp_path, float("nan"), limit=2)
    said = str(stopped.value)
    assert said.startswith("At step 3 the loss or the gradient is not finite, as in the step before it")
    assert "lower optimizer.lr" in said and "trainer.max_bad_steps" in said


def test_the_rows_to_blame_are_named_with_their_rank(tmp_path: Path) -> None:
    """A network whose output is not a number for one token: the rows that hold it are the culprits."""
    model, token = module(), 5
    with torch.no_grad():
        model.backbone.network.model.embeddings.tok_embeddings.weight[token] = float("nan")
    model.backbone.network.decoder.weight = torch.nn.Parameter(torch.randn_like(model.backbone.network.decoder.weight))
    clean = [([8, 9, 10, 11], 1)] * 3
    batch = canvas([clean[0], ([token, 9, 10, 11], 1), clean[0]])
    with pytest.raises(NotFinite) as stopped:
        quiet(tmp_path, callbacks=[BadSteps(1)]).fit(model, Data([batch]))
    assert "caused on rank 0 by row 1 of batch 0 ('[5, 9, 10, 11]')" in str(stopped.value)


def rank(number: int, port: int, folder: Path) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "WORLD_SIZE": "2"}
    os.environ["LOCAL_RANK"] = str(number)
    weights = fit(folder, float("nan"), 3, devices=2, strategy="ddp")
    torch.save([weight for weight, _ in weights.seen], folder / f"{number}.pt")


def test_a_step_that_is_bad_on_one_rank_is_skipped_on_all(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_processes(rank, (port, tmp_path), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{number}.pt") for number in range(2))
    assert all(map(torch.equal, first, second))
    assert torch.equal(first[1], first[3]) and not torch.equal(first[3], first[4])


def test_a_limit_that_allows_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"trainer\.max_bad_steps=0: give 1 or more"):
        BadSteps(0)


def test_a_resumed_run_has_counted_what_came_before() -> None:
    before, after = BadSteps(5), BadSteps(5)
    before.total, before.in_a_row = 7, 2
    after.load_state_dict(before.state_dict())
    assert (after.total, after.in_a_row) == (7, 2)
