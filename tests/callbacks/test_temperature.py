"""Annealing is a curve over the global step: its shapes, its ends, and that a run which goes on is still on it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from dllm_lightning.callbacks import TemperatureAnnealing
from dllm_lightning.compatibility import IncompatibleParts, check_callbacks
from dllm_lightning.model import MDM, Duo
from tests.conf.configurations import composed
from tests.model.duo_parts import duo
from tests.model.parts import Data, canvas, documents, quiet


@pytest.mark.parametrize(
    ("shape", "middle"),
    [("log_linear", 1e-2), ("linear", (1e-1 + 1e-3) / 2), ("cosine", (1e-1 + 1e-3) / 2), ("constant", 1e-1)],
)
def test_each_shape_starts_and_ends_where_it_says(shape: Any, middle: float) -> None:
    curve = TemperatureAnnealing(1e-1, 1e-3, shape=shape)
    assert [curve.tau(step, 100, 300) for step in (0, 100)] == pytest.approx([1e-1, 1e-1])
    assert curve.tau(200, 100, 300) == pytest.approx(middle)
    assert [curve.tau(step, 100, 300) for step in (300, 10**6)] == [1e-3, 1e-3]
    falling = [curve.tau(step, 100, 300) for step in range(0, 400, 10)]
    assert falling == sorted(falling, reverse=True)


def test_a_quarter_of_the_way_the_shapes_differ() -> None:
    def quarter(shape: Any) -> float:
        return TemperatureAnnealing(1.0, 1e-4, shape=shape).tau(25, 0, 100)

    assert quarter("log_linear") == pytest.approx(0.1)
    assert quarter("linear") == pytest.approx(0.750025)
    assert quarter("cosine") == pytest.approx(1 - (1 - 1e-4) * (1 - math.cos(math.pi / 4)) / 2)


def test_the_originals_curve_is_linear_to_zero_over_500_000_steps() -> None:
    part = composed("experiment=duo_original").callbacks.temperature
    curve = TemperatureAnnealing(part.first, part.last, part.begin, part.end, part.shape)
    assert [curve.tau(step, 0, part.end) for step in (0, 250_000, 500_000)] == pytest.approx([1e-3, 5e-4, 0.0])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"shape": "cubic"}, "callbacks.temperature.shape=cubic"),
        ({"first": -1.0}, "callbacks.temperature.first=-1.0"),
        ({"last": 0.0}, "no logarithm reaches 0"),
        ({"begin": -5.0}, "callbacks.temperature.begin=-5.0"),
    ],
)
def test_curves_that_cannot_be_drawn_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TemperatureAnnealing(**values)


def test_a_model_without_soft_tokens_is_told_so() -> None:
    callbacks = composed("model=duo").callbacks
    check_callbacks(Duo, callbacks)
    with pytest.raises(IncompatibleParts, match=r"callbacks\.temperature anneals .* MDM has none.* model=duo\.$"):
        check_callbacks(MDM, callbacks)


class Taus(TemperatureAnnealing):
    """Remembers with which temperature each batch was noised."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        super().on_train_batch_start(trainer, pl_module, *_)
        seen.append((trainer.global_step, pl_module.noised_at))


seen: list[tuple[int, float]] = []


class Noticing(Duo):
    def corrupt(self, canvas: Any) -> Any:
        self.noised_at = self.tau
        return super().corrupt(canvas)


def test_every_batch_is_noised_at_the_temperature_of_its_step(tmp_path: Path) -> None:
    """Accumulated batches share one; a run that goes on goes on along the curve."""
    batches = [canvas(documents(4, seed)) for seed in range(12)]

    def run(steps: int, checkpoint: Path | None = None) -> list[tuple[int, float]]:
        seen.clear()
        curve = Taus(1e-1, 1e-3, begin=1, end=4)
        trainer = quiet(tmp_path, callbacks=[curve], accumulate_grad_batches=2, max_epochs=-1, max_steps=steps)
        trainer.fit(duo(kind=Noticing), Data(batches), ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / f"{steps}.ckpt")
        return list(seen)

    whole = run(5)
    curve = TemperatureAnnealing(1e-1, 1e-3)
    assert whole == [(step, pytest.approx(curve.tau(step, 1, 4))) for step in range(5) for _ in range(2)]
    assert len({tau for _, tau in whole}) == 4
    run(2)
    assert run(5, tmp_path / "2.ckpt") == whole[4:]
