"""A validation score depends on the weights and the documents, and on nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dllm_lightning.model.metrics import BANDS
from dllm_lightning.noise import Cosine, LogLinear
from dllm_lightning.process import FloorCount, MaskedDiffusion, PerDocument, Replace
from dllm_lightning.types import Canvas
from tests.model.parts import VOCAB, Data, canvas, documents, module, packed, quiet

DOCUMENTS = documents(24)
ORDER = [5, 0, 17, 23, 2, 9, 1, 20, 14, 3, 11, 8, 6, 22, 4, 19, 10, 7, 13, 21, 12, 18, 16, 15]
LAYOUTS = {
    "one at a time": [canvas([document]) for document in DOCUMENTS],
    "sixteen at a time": [canvas(DOCUMENTS[:16]), canvas(DOCUMENTS[16:])],
    "with much padding": [canvas(DOCUMENTS, left=9, extra=13)],
    "packed": [packed(DOCUMENTS[:10]), packed(DOCUMENTS[10:])],
    "in another order": [canvas([DOCUMENTS[i] for i in ORDER])],
    "beside empty batches": [canvas([]), canvas(DOCUMENTS), canvas([])],
}
SMALL = 1e-5
"""Much less than the 1e-4 nats that curves may differ by, and more than float32 rounding."""


def validated(batches: list[Canvas], folder: Path, model: Any = None, **options: Any) -> dict[str, float]:
    trainer = quiet(folder, **options)
    trainer.validate(model or module(), Data(validation=batches), verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """The scores of one document at a time."""
    return validated(LAYOUTS["one at a time"], tmp_path_factory.mktemp("reference"))


def nats_by_hand(model: Any) -> tuple[list[float], list[int]]:
    """The bound of each document, one network call with all logits per document and draw; and its answer tokens."""
    model.backbone.eval()
    process, nats = model.process.plain, []
    for ids, prompt in DOCUMENTS:
        total = 0.0
        for draw in range(4):
            one = canvas([(ids, prompt)])
            draws = PerDocument(0, draw, 4)
            batch = process.corrupt(one, draws.times(one), draws)
            with torch.no_grad():
                logits = model.backbone(batch.x_t, batch.t, one.segment, torch.arange(len(ids)))
            logits[:, VOCAB.mask_id :] = -torch.inf
            for place, hidden in enumerate(batch.asked[0].tolist()):
                if hidden:
                    surprise = -logits[place].log_softmax(0)[ids[place]].item()
                    total += surprise / batch.t[0, place].item() / 4
        nats.append(total)
    return nats, [len(ids) - prompt for ids, prompt in DOCUMENTS]


def test_the_score_is_the_bound_written_out_over_documents_and_draws(reference: dict[str, float]) -> None:
    """1/t at every hidden slot, four draws, divided by all answer tokens."""
    nats, tokens = nats_by_hand(module())
    scores = reference
    assert scores["val/nelbo"] == pytest.approx(sum(nats) / sum(tokens), rel=1e-5)
    assert scores["val/ppl"] == pytest.approx(torch.tensor(scores["val/nelbo"]).exp().item(), rel=1e-5)
    mean = sum(nats) / sum(tokens)
    residual = sum((n - mean * k) ** 2 for n, k in zip(nats, tokens, strict=True))
    error = (residual * 24 / 23) ** 0.5 / sum(tokens)
    assert scores["val/nelbo_error"] == pytest.approx(error, rel=1e-4)


@pytest.mark.parametrize("layout", list(LAYOUTS)[1:])
def test_batch_size_padding_packing_and_order_do_not_change_the_score(
    tmp_path: Path, reference: dict[str, float], layout: str
) -> None:
    scores = validated(LAYOUTS[layout], tmp_path)
    assert scores.keys() == reference.keys()
    assert_close(scores, reference, rtol=SMALL, atol=SMALL, equal_nan=True)


def test_the_number_of_ranks_does_not_change_the_score(tmp_path: Path, reference: dict[str, float]) -> None:
    """Two gloo processes, of which one has nothing at the end."""

    class Shared(Data):
        def val_dataloader(self) -> Any:
            batches = [canvas(DOCUMENTS[:7]), canvas(DOCUMENTS[7:9])], [canvas(DOCUMENTS[9:]), canvas([])]
            self.validation = batches[self.trainer.global_rank]  # type: ignore[union-attr]
            return super().val_dataloader()

    trainer = quiet(tmp_path, devices=2, strategy="ddp_fork")
    trainer.validate(module(), Shared(), verbose=False)
    scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert_close(scores, reference, rtol=SMALL, atol=SMALL, equal_nan=True)


def test_two_validations_give_the_same_numbers(tmp_path: Path) -> None:
    """Nothing is carried over from one to the next, and nothing is drawn from a common generator."""
    model = module()
    first = validated(LAYOUTS["packed"], tmp_path, model)
    torch.manual_seed(99)
    torch.rand(7)
    assert validated(LAYOUTS["packed"], tmp_path, model) == first
    assert validated(LAYOUTS["packed"], tmp_path, module(seed=5)) != first


def test_a_longer_training_is_validated_by_the_same_noise(tmp_path: Path) -> None:
    """At step 0 and, with a learning rate of nothing, at step 2: equal."""
    scores: list[dict[str, float]] = []

    class Keep(L.Callback):
        def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            scores.append({k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")})

    model = module()
    model.backbone.requires_grad_(False)
    model.backbone.network.decoder.bias.requires_grad_(True)
    options: dict[str, Any] = {"callbacks": [Keep()], "val_check_interval": 1, "max_epochs": 1}
    still = {"optimizer": type(model.optimizer)(lr=1e-30, weight_decay=0.0, warmup=0)}
    model.optimizer = still["optimizer"]
    data = Data([canvas(DOCUMENTS[:4]), canvas(DOCUMENTS[4:8])], validation=LAYOUTS["packed"])
    quiet(tmp_path, **options).fit(model, data)
    assert len(scores) == 2
    assert scores[0] == scores[1] == {k: v for k, v in validated(LAYOUTS["packed"], tmp_path).items() if "val/" in k}


@pytest.mark.parametrize(
    "process",
    [
        MaskedDiffusion(VOCAB, LogLinear(0.15, 0.99), FloorCount(), Replace(0.8, 0.1, 0.1)),
        MaskedDiffusion(VOCAB, LogLinear(0.3, 0.3)),
    ],
    ids=["the original recipe", "a fixed ratio"],
)
def test_a_recipe_without_a_bound_is_measured_by_the_plain_process(
    tmp_path: Path, reference: dict[str, float], process: MaskedDiffusion
) -> None:
    assert process.why_no_bound is not None
    scores = validated(LAYOUTS["packed"], tmp_path, module(process=process))
    assert_close(scores, reference, rtol=SMALL, atol=SMALL, equal_nan=True)


def test_schedules_are_compared_by_the_same_bound(tmp_path: Path) -> None:
    """The bound does not depend on the curve, so another one gives another estimate of the same number."""
    straight = validated(LAYOUTS["packed"], tmp_path, module(validation_draws=24))
    curved = validated(
        LAYOUTS["packed"], tmp_path, module(process=MaskedDiffusion(VOCAB, Cosine()), validation_draws=24)
    )
    assert straight["val/nelbo"] != curved["val/nelbo"]
    assert straight["val/nelbo"] == pytest.approx(curved["val/nelbo"], rel=0.04)


def test_an_untrained_network_scores_the_uniform_surprise_in_every_band(tmp_path: Path) -> None:
    """ln of the 59 tokens there are, at every ratio; accuracy is chance. The bands hold every hidden slot once."""
    model = module(validation_draws=16)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.zero_()
    scores = validated(LAYOUTS["packed"], tmp_path, model)
    uniform = torch.log(torch.tensor(VOCAB.mask_id * 1.0)).item()
    for band in BANDS:
        assert scores[f"val/loss/{band}"] == pytest.approx(uniform, rel=1e-5)
        assert scores[f"val/accuracy/{band}"] < 0.1
    assert scores["val/nelbo"] == pytest.approx(uniform, rel=0.1)
    assert scores["val/accuracy"] < 0.1


def test_unigram_entropy_is_that_of_the_answers_alone(reference: dict[str, float]) -> None:
    answers = torch.cat([torch.tensor(ids[prompt:]) for ids, prompt in DOCUMENTS])
    frequency: Tensor = torch.bincount(answers).double() / len(answers)
    entropy = -torch.xlogy(frequency, frequency).sum().item()
    assert reference["val/unigram_entropy"] == pytest.approx(entropy, rel=1e-6)


def test_no_draw_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.validation_draws=0"):
        module(validation_draws=0)
