"""What a loss weighs, what it refuses, and in which words. The values are held against enumeration in the laws."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dllm_lightning.loss import CE, Elbo, Loss, MaskedCE, SymmetricKL, WeightedCE
from dllm_lightning.noise import Cosine, LogLinear
from dllm_lightning.process import FloorCount, MaskedDiffusion, NoBound, Replace, UniformCount, UniformDiffusion
from dllm_lightning.types import Slots
from tests.laws.parts import leaves, masked_processes, seeded, vocabulary

LOSSES: list[type[Loss]] = list(leaves(Loss))
VOCAB = vocabulary(11)
MDLM = MaskedDiffusion(VOCAB, LogLinear())
ORIGINAL = MaskedDiffusion(VOCAB, LogLinear(0.15, 0.99), FloorCount(), Replace(0.8, 0.1, 0.1))
FIXED = MaskedDiffusion(VOCAB, LogLinear(0.15, 0.15), FloorCount())
LOG_P = torch.full((3, 11), -2.0)


def slots(*t: float) -> Slots:
    n = len(t)
    return Slots(torch.arange(n), torch.full((n,), VOCAB.mask_id), torch.tensor(t), torch.arange(n))


def nats(loss: Loss, process: MaskedDiffusion, *t: float) -> list[float]:
    return loss(LOG_P, slots(*t), process).tolist()


def test_the_bound_weighs_a_slot_by_one_over_its_time() -> None:
    assert nats(Elbo(), MDLM, 0.5, 0.25, 0.01) == pytest.approx([4, 8, 200])


def test_flat_cross_entropy_weighs_all_slots_the_same() -> None:
    assert nats(MaskedCE(), MDLM, 0.5, 0.25, 0.01) == [2, 2, 2]
    assert nats(MaskedCE(), ORIGINAL, 0.5, 0.25, 0.01) == [2, 2, 2]


def test_clipping_stops_a_nearly_clean_row_from_owning_the_step() -> None:
    assert nats(WeightedCE(max_weight=10.0), MDLM, 0.5, 0.25, 0.01) == pytest.approx([4, 8, 20])
    assert nats(WeightedCE(max_weight=3.0), MDLM, 0.5, 0.25, 0.01) == pytest.approx([4, 6, 6])
    assert nats(WeightedCE(max_weight=None), MDLM, 0.5, 0.25, 0.01) == pytest.approx([4, 8, 200])


def test_the_level_weight_is_one_over_the_share_that_is_hidden() -> None:
    """Under every rule of hiding, whatever its clock."""
    level = WeightedCE(weight="level", max_weight=None)
    assert nats(level, ORIGINAL, 0.0, 0.5, 1.0) == pytest.approx([2 / 0.15, 2 / 0.57, 2 / 0.99])
    assert nats(level, FIXED, 0.1, 0.5, 0.9) == pytest.approx([2 / 0.15] * 3)
    counted = MaskedDiffusion(VOCAB, Cosine(), UniformCount())
    assert nats(level, counted, 0.25, 0.5, 1.0) == pytest.approx([8, 4, 2])
    recipe = MaskedDiffusion(VOCAB, LogLinear(0.15, 0.99), UniformCount())
    assert nats(level, recipe, 0.25, 0.5, 1.0) == pytest.approx([8, 4, 2])


def test_unclipped_elbo_weights_are_the_bound() -> None:
    for process in masked_processes(VOCAB):
        if process.why_no_bound is None:
            assert nats(WeightedCE(max_weight=None), process, 0.1, 0.5, 0.9) == nats(Elbo(), process, 0.1, 0.5, 0.9)


def test_the_bound_refuses_a_corruption_that_has_none() -> None:
    assert Elbo().refuses(MDLM) is None
    reason = Elbo().refuses(ORIGINAL)
    assert reason is not None
    for word in ("no likelihood bound", "80% masks", "loss=masked_ce", "loss=weighted_ce", "val/nelbo"):
        assert word in reason
    with pytest.raises(NoBound):
        nats(Elbo(), ORIGINAL, 0.5, 0.5, 0.5)


def test_a_loss_that_refuses_nothing_gives_finite_nats_and_a_refused_one_has_a_reason() -> None:
    for process in masked_processes(VOCAB):
        for kind in (kind for kind in LOSSES if isinstance(process, kind.accepts)):
            reason = kind().refuses(process)
            if reason is None:
                assert torch.isfinite(kind()(LOG_P, slots(0.1, 0.5, 0.9), process)).all()
                assert kind()(LOG_P, slots(0.1, 0.5, 0.9), process).sum() > 0
            else:
                assert len(reason) > 40


def test_noise_that_ends_half_way_has_no_bound_but_can_be_descended_on() -> None:
    """The curriculum of Duo does so on purpose; to choose it as the whole training is refused."""
    whole, half = UniformDiffusion(VOCAB, LogLinear()), UniformDiffusion(VOCAB, LogLinear(0.05, 0.95))
    assert Elbo().refuses(whole) is None
    reason = Elbo().refuses(half)
    assert reason is not None
    for words in ("from 5% to 95%", "loss=ce or loss=symmetric_kl", "val/nelbo", "noise.max_ratio=1 process=uniform"):
        assert words in reason
    uniform = slots(0.2, 0.7)._replace(x_t=torch.tensor([3, 2]))
    for loss in (Elbo(), CE(), SymmetricKL(), SymmetricKL(form="onehot"), SymmetricKL(form="nelbo")):
        belief = half.log_p_x0(torch.randn(2, 11, generator=seeded(0)), uniform)
        assert (loss(belief, uniform, half) > 0).all()


def test_each_loss_says_which_noise_it_is_for() -> None:
    process = UniformDiffusion(VOCAB, LogLinear())
    assert {kind for kind in LOSSES if isinstance(process, kind.accepts)} == {Elbo, CE, SymmetricKL}
    assert {kind for kind in LOSSES if isinstance(MDLM, kind.accepts)} == {Elbo, MaskedCE, WeightedCE}
    assert not any(kind().refuses(process) for kind in (Elbo, CE, SymmetricKL))


def test_an_elbo_weight_that_is_zero_everywhere_is_refused() -> None:
    reason = WeightedCE().refuses(FIXED)
    assert reason is not None and "mask ratio is fixed" in reason and "loss.weight=level" in reason
    assert WeightedCE(weight="level").refuses(FIXED) is None
    assert WeightedCE().refuses(ORIGINAL) is None
    assert WeightedCE().refuses(MaskedDiffusion(VOCAB, LogLinear(0.15, 0.15), UniformCount())) is None


def unchecked(loss: Loss, **fields: Any) -> Loss:
    """The loss with other fields: these tests check types before the constructor can, which a run does not."""
    for name, value in fields.items():
        object.__setattr__(loss, name, value)
    return loss


@pytest.mark.parametrize("kind", LOSSES)
def test_a_unit_of_the_mean_that_is_none_is_refused(kind: type[Loss]) -> None:
    with pytest.raises(ValueError, match=r"loss\.per='word' is no unit of a mean: choose one of token, seq"):
        unchecked(kind(), per="word").__post_init__()


def test_a_weight_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"loss\.weight='flat' is no weight of a noise level: choose elbo or level"):
        unchecked(WeightedCE(), weight="flat").__post_init__()


def test_weights_that_silence_the_loss_are_refused() -> None:
    for silent in (0.0, -1.0):
        with pytest.raises(ValueError, match=rf"loss\.max_weight={silent} would silence the loss.*above 0, or null"):
            WeightedCE(max_weight=silent)


def test_a_choice_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"loss\.slots='some' is no choice of slots: choose replaced or all"):
        unchecked(CE(), slots="some").__post_init__()
    with pytest.raises(ValueError, match=r"loss\.form='kl' is no divergence: choose one of onehot, marginal, nelbo"):
        unchecked(SymmetricKL(), form="kl").__post_init__()
    with pytest.raises(ValueError, match=r"loss\.view_scale='w' is no weight of a level: choose one of none, literal"):
        unchecked(SymmetricKL(), view_scale="w").__post_init__()
    for floor in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=rf"loss\.floor={floor} stands for -log 0: choose a number above 0"):
            SymmetricKL(floor=floor)
