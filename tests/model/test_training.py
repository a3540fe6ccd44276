"""The one mean: however a global batch is cut into micro-batches and ranks, a step is the same step."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch.multiprocessing import start_processes
from torch.testing import assert_close

from dllm_lightning.loss import Loss, MaskedCE
from dllm_lightning.loss.loss import Per
from dllm_lightning.model import ShardedModelParallel
from tests.backbone.nets import modernbert
from tests.laws.parts import LOSSES
from tests.model.parts import Data, NoiseOfDocuments, canvas, documents, fit, gradients, module, run

every_loss = pytest.mark.parametrize("loss", [kind(per=per) for kind in LOSSES for per in get_args(Per)], ids=str)
DOCUMENTS = documents(24)
WHOLE = [canvas(DOCUMENTS[:12]), canvas(DOCUMENTS[12:])]
THIRDS = [canvas(DOCUMENTS[start : start + 4]) for start in range(0, 24, 4)]
UNEVEN = [canvas(DOCUMENTS[start:stop]) for start, stop in [(0, 1), (1, 4), (4, 12), (12, 17), (17, 23), (23, 24)]]


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Gradients before every step, to float32 rounding of their norm, and the losses."""
    assert len(ours["gradients"]) == len(theirs["gradients"]) > 0
    for one, other in zip(ours["gradients"], theirs["gradients"], strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert (one[name] - other[name]).norm() <= 5e-5 * other[name].norm() + 1e-7, name
    assert_close(ours["losses"], theirs["losses"], rtol=1e-5, atol=1e-6)


@every_loss
def test_accumulated_batches_take_the_step_of_one_large_batch(tmp_path: Path, loss: Loss) -> None:
    """With answers of 1 to 30 slots, spread unevenly over three micro-batches, for two steps."""
    whole = fit(module(loss, NoiseOfDocuments), Data(WHOLE), tmp_path / "whole")
    same(fit(module(loss, NoiseOfDocuments), Data(UNEVEN), tmp_path / "parts", accumulate_grad_batches=3), whole)


def test_the_last_window_of_an_epoch_may_be_short(tmp_path: Path) -> None:
    """Five micro-batches in windows of three: the second step is that of a batch of the last two."""
    cut = fit(module(kind=NoiseOfDocuments), Data(THIRDS[:5]), tmp_path / "cut", accumulate_grad_batches=3)
    whole = [canvas(DOCUMENTS[:12]), canvas(DOCUMENTS[12:20])]
    same(cut, fit(module(kind=NoiseOfDocuments), Data(whole), tmp_path / "whole"))


def test_a_step_on_several_ranks_is_the_step_of_one(tmp_path: Path) -> None:
    """Two gloo processes, each with two micro-batches a step; the long answers are not shared out evenly."""
    ranks = [UNEVEN[0], UNEVEN[1], UNEVEN[3], UNEVEN[5]], [UNEVEN[2], canvas([]), UNEVEN[4], canvas([])]
    options = {"accumulate_grad_batches": 2, "devices": 2, "strategy": "ddp_fork"}
    both = fit(module(kind=NoiseOfDocuments), Data(*ranks), tmp_path / "both", **options)
    same(both, fit(module(kind=NoiseOfDocuments), Data(WHOLE), tmp_path / "one"))
    assert_close(torch.load(tmp_path / "both" / "1.pt")["gradients"], both["gradients"])


def shard(rank: int, port: int, folder: Path, ranks: Any) -> None:
    """What a launcher would do for one of two processes."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "WORLD_SIZE": "2"}
    os.environ["LOCAL_RANK"] = str(rank)
    options = {"accumulate_grad_batches": 2, "devices": 2, "strategy": ShardedModelParallel("gloo")}
    run(module(kind=NoiseOfDocuments), Data(*ranks), folder, **options, gradient_clip_val=1000.0)


def test_a_step_of_a_sharded_model_is_the_step_of_a_whole_one(tmp_path: Path) -> None:
    """FSDP2 on two CPU processes."""
    ranks = [UNEVEN[0], UNEVEN[1], UNEVEN[3], UNEVEN[5]], [UNEVEN[2], canvas([]), UNEVEN[4], canvas([])]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_processes(shard, (port, tmp_path / "shards", ranks), nprocs=2, start_method="fork")
    sharded = torch.load(tmp_path / "shards" / "0.pt")
    same(sharded, fit(module(kind=NoiseOfDocuments), Data(WHOLE), tmp_path / "one"))


def test_a_batch_that_asks_for_nothing_gives_every_parameter_a_gradient_of_zero(tmp_path: Path) -> None:
    empty = fit(module(kind=NoiseOfDocuments), Data([canvas([])]), tmp_path)
    names = {name for name, p in module().named_parameters() if p.requires_grad}
    assert empty["gradients"][0].keys() == names
    assert all((gradient == 0).all() for gradient in empty["gradients"][0].values())
    assert empty["losses"] == [0.0]


def test_clipping_acts_on_the_gradient_of_the_mean(tmp_path: Path) -> None:
    """Not on the sum that backward saw, which is a hundred times larger."""
    free = fit(module(kind=NoiseOfDocuments), Data(THIRDS[:3]), tmp_path / "free", accumulate_grad_batches=3)
    (gradient,) = free["gradients"]
    norm = float(torch.stack([g.norm() for g in gradient.values()]).norm())
    for bound in (0.5 * norm, 2 * norm):
        options = {"accumulate_grad_batches": 3, "gradient_clip_val": bound}
        clipped = fit(module(kind=NoiseOfDocuments), Data(THIRDS[:3]), tmp_path / f"{bound}", **options)
        expected = {name: g * min(1.0, bound / norm) for name, g in gradient.items()}
        assert_close(clipped["gradients"][0], expected, rtol=1e-4, atol=1e-7)


def test_the_gradient_is_that_of_the_mean_nats_written_out(tmp_path: Path) -> None:
    """Without chunks, Lightning or a second look: log-softmax, surprise, mean over the hidden slots."""
    trained = fit(module(MaskedCE(), NoiseOfDocuments), Data(WHOLE[:1]), tmp_path)
    model = module(MaskedCE(), NoiseOfDocuments)
    batch = model.corrupt(WHOLE[0])
    logits = model.backbone(batch.x_t, batch.t, batch.clean.segment, torch.arange(batch.x_t.numel()))
    logits = logits[batch.asked.flatten()].clone()
    logits[:, model.process.vocab.mask_id :] = -torch.inf  # no answer is a mask, or the row that no token has
    mean = torch.nn.functional.cross_entropy(logits, batch.clean.ids[batch.asked])
    mean.backward()
    assert_close(trained["losses"], [mean.item()], rtol=1e-5, atol=0)
    assert_close(trained["gradients"][0], gradients(model), rtol=1e-4, atol=1e-7)


def times(folder: Path, seed: int = 0, steps: int = 2, **options: Any) -> list[dict[str, Any]]:
    """Two micro-batches of four documents per step, on each rank."""
    ranks = int(options.get("devices", 1))
    batches = [[canvas(documents(4, seed=10 * rank + i)) for i in range(2 * steps)] for rank in range(ranks)]
    fit(module(seed=seed), Data(*batches), folder, accumulate_grad_batches=2, **options)
    return [torch.load(folder / f"{rank}.pt") for rank in range(ranks)]


def test_noise_is_a_function_of_the_seed_and_of_nothing_else(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first, again = times(tmp_path / "first"), times(tmp_path / "again")
    assert first[0]["losses"] == again[0]["losses"]
    assert_close(first, again, rtol=0, atol=0)
    other = times(tmp_path / "other", seed=1)
    assert not torch.equal(other[0]["times"][0], first[0]["times"][0])
    drawn = torch.cat(first[0]["times"])
    assert len(drawn.unique()) == len(drawn)  # fresh in every step and micro-batch


def test_so_is_what_dropout_draws(tmp_path: Path) -> None:
    def losses(before: int, dropout: float = 0.3) -> list[float]:
        model = module()
        model.backbone = modernbert(chunk=32, sizes={"embedding_dropout": dropout, "mlp_dropout": dropout})
        torch.manual_seed(before)
        return fit(model, Data([canvas(documents(4))] * 2), tmp_path / f"{before} {dropout}")["losses"]

    assert losses(1) == losses(2) != losses(1, dropout=0.0)


def test_times_are_stratified_over_the_whole_global_batch(tmp_path: Path) -> None:
    """Sixteen documents on two ranks in two micro-batches: one time in each sixteenth, at every step."""
    ranks = times(tmp_path, devices=2, strategy="ddp_fork")
    for step in range(2):
        drawn = torch.cat([batch for rank in ranks for batch in rank["times"][2 * step : 2 * step + 2]])
        assert ((16 * drawn).ceil().long() - 1).sort().values.tolist() == list(range(16))
