"""A network behind a process: who is asked, in which mode, and by the rules of which corruption."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from dllm_lightning.backbone.cache import Cache, Delayed, Dual, Memory, Prefix, Vicinity
from dllm_lightning.model.denoiser import NetworkDenoiser
from dllm_lightning.noise import LogLinear
from dllm_lightning.process import MaskedDiffusion, Replace
from dllm_lightning.sampler import Reveal
from tests.backbone.nets import K, modernbert
from tests.laws.parts import vocabulary
from tests.sampler.denoisers import LittleNetwork, blank, plain

VOCAB = vocabulary(11)
CACHES = (Prefix(), Dual(refresh_every=2), Vicinity(before=2, after=1), Delayed())


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


class NoWaiting(TorchDispatchMode):
    """Stands for a device whose answers come late, if at all: what lies on `meta` has shapes, but no numbers.

    Whoever asks for one of them fails by himself; only writing where a mask is true would not, although it counts them.
    What goes there has to be sent without waiting for its arrival.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if "index_put" in str(func):
            assert all(each is None or each.dtype != torch.bool for each in args[1])
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = args[1] if func is torch.ops.aten.copy_.default else args[0]
            if source.device != found.device:
                assert (kwargs or {}).get("non_blocking"), f"{source.shape} was waited for"
                self.sent += 1
        return found


@pytest.mark.parametrize("cache", (None, *CACHES), ids=str)
def test_nothing_waits_for_the_device_where_the_question_lies_on_the_host(
    cache: Cache | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)  # which knows no such device
    vocab = vocabulary(K)
    process, canvas = plain(vocab), blank(5, 9, 7, prompt=6, vocab=vocab)
    vars(process)["never"] = process.never.to("meta")  # constants are there already
    asking = NetworkDenoiser(modernbert(time_conditioning=True).to("meta"), process, cache)
    if cache is not None:
        asking.memory = Memory(cache, canvas, asking.backbone.store())
    x_t, _, segment = canvas.to("meta")
    at = canvas.editable.clone()
    for gone in ([0, -1], [1, -4], [0, slice(None)], [1, -1]):
        at[*gone] = False
        with NoWaiting() as watching:
            x0, sure = asking.read(x_t, torch.empty(3, device="meta"), segment, at, best)
        assert x0.shape == sure.shape == (int(at.sum()),) and watching.sent > 0
    assert asking.calls == 4


def best(log_p_x0: Tensor, part: slice) -> tuple[Tensor, ...]:
    return log_p_x0.argmax(-1), log_p_x0.amax(-1)
