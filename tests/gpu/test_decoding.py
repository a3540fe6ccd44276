"""Decoding on a GPU: the texts of a CPU, and no question that waits for its answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from dllm_lightning.backbone.cache import Cache, Delayed, Dual, Prefix, Vicinity
from dllm_lightning.model.denoiser import NetworkDenoiser
from dllm_lightning.sampler import Blockwise, Reveal, Several
from tests.backbone.nets import K, modernbert
from tests.laws.parts import vocabulary
from tests.sampler.denoisers import blank, plain

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here"),
]
VOCAB = vocabulary(K)
every_cache = pytest.mark.parametrize(
    "cache", [None, Prefix(), Dual(refresh_every=3), Vicinity(before=2, after=1), Delayed()], ids=str
)
SURE = {"initializer_range": 0.3}


@pytest.fixture
def strict() -> Iterator[None]:
    """From the first synchronisation on it is an error."""
    torch.cuda.synchronize()
    yield
    torch.cuda.set_sync_debug_mode("default")


@every_cache
def test_a_walk_on_a_gpu_writes_the_text_of_a_cpu(cache: Cache | None) -> None:
    canvas = blank(9, 12, 7, prompt=8, vocab=VOCAB)
    for sampler in (Reveal(), Blockwise(inner=Reveal(pace=Several(2)), block=5, stop=False)):
        texts = [
            sampler.sample(
                NetworkDenoiser(modernbert(sizes=SURE).to(device), plain(VOCAB), cache), canvas.to(device)
            ).cpu()
            for device in ("cpu", "cuda")
        ]
        assert torch.equal(*texts)


@every_cache
def test_no_question_from_the_host_waits_for_the_device(cache: Cache | None, strict: None) -> None:
    canvas, process = blank(9, 12, 7, prompt=8, vocab=VOCAB), plain(VOCAB)
    vars(process)["never"] = process.never.cuda()  # constants are there already
    asking = NetworkDenoiser(modernbert().cuda(), process, cache).within(canvas.to("cuda"))
    x_t, _, segment = canvas.to("cuda")
    t, at = torch.ones(3, device="cuda"), canvas.editable.clone()
    for gone in ([0, -1], [1, -4], [0, slice(None)], [1, -1]):
        at[*gone] = False
        asking.read(x_t, t, segment, at, best)  # whatever is set up once
        torch.cuda.set_sync_debug_mode("error")
        x0, _ = asking.read(x_t, t, segment, at, best)
        torch.cuda.set_sync_debug_mode("default")
        assert x0.shape == (int(at.sum()),)


def best(log_p_x0: Tensor, part: slice) -> tuple[Tensor, ...]:
    return log_p_x0.argmax(-1), log_p_x0.amax(-1)
