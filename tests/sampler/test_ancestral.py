"""Walking the corruption backwards draws from the distribution that the network knows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dllm_lightning.noise import Cosine, Geometric, LogLinear, NoiseSchedule, Polynomial
from dllm_lightning.process import MaskedDiffusion, UniformDiffusion
from dllm_lightning.sampler import Ancestral, Proposal
from tests.laws.odds import SURPRISING, chi_square
from tests.laws.parts import seeded, vocabulary
from tests.sampler.denoisers import Cavity, Fixed, Joint, Oracle, blank, plain, uniform

VOCAB = vocabulary(5)


def random_joint(*shape: int, seed: int) -> torch.Tensor:
    p = torch.rand(*shape, generator=seeded(seed), dtype=torch.float64) ** 4
    return p / p.sum()


@pytest.mark.parametrize("schedule", [LogLinear(), Cosine()], ids=str)
def test_many_strides_with_exact_conditionals_draw_from_the_joint(schedule: NoiseSchedule) -> None:
    """What is left of the error: two of three slots revealed in the same of 100 strides."""
    p, rows = random_joint(3, 3, 3, seed=0), 3000
    joint = Joint(p, MaskedDiffusion(VOCAB, schedule))
    texts = Ancestral(steps=100).sample(joint, blank(*[3] * rows, prompt=0, vocab=VOCAB), seeded(1))
    assert chi_square(joint.counts(texts), p * rows) < SURPRISING


@pytest.mark.parametrize("schedule", [LogLinear(), Cosine()], ids=str)
def test_random_tokens_are_walked_back_to_the_joint_by_a_perfect_cavity(schedule: NoiseSchedule) -> None:
    p, rows = random_joint(3, 3, seed=0), 2500
    joint = Cavity(p, UniformDiffusion(VOCAB, schedule))
    texts = Ancestral(steps=60).sample(joint, blank(*[2] * rows, prompt=0, vocab=VOCAB), seeded(1))
    assert chi_square(joint.counts(texts), p * rows) < SURPRISING


def test_few_strides_from_random_tokens_miss_the_joint() -> None:
    p, rows = random_joint(3, 3, seed=0), 2500
    joint = Cavity(p, uniform(VOCAB))
    texts = Ancestral(steps=2).sample(joint, blank(*[2] * rows, prompt=0, vocab=VOCAB), seeded(1))
    assert chi_square(joint.counts(texts), p * rows) > SURPRISING


def test_a_draft_is_taken_up_where_its_noise_is() -> None:
    """A perfect cavity repairs a text in which a fifth is random, and knows nothing of one that is taken for noise."""
    p = torch.zeros(3, 3, 3, 3, dtype=torch.float64)
    for token in range(3):
        p[token, token, token, token] = 1 / 3
    joint, rows = Cavity(p, uniform(VOCAB)), 300
    canvas = blank(*[4] * rows, prompt=0, vocab=VOCAB)
    draft = torch.zeros_like(canvas.ids)
    draft[:, 2] = 1
    repaired = [Ancestral(30, noise=n).sample(joint, canvas, seeded(2), draft).eq(0).all(1) for n in (0.2, 1.0)]
    assert repaired[0].sum() > 0.9 * rows and repaired[1].sum() < 0.5 * rows


@pytest.mark.parametrize("process", [plain(VOCAB), uniform(VOCAB)], ids=lambda process: type(process).__name__)
def test_a_greedy_tail_ends_with_the_most_probable_tokens(process: Any) -> None:
    """Under uniform noise everywhere, whatever stood there; behind masks at what is still hidden."""
    log_p = torch.full((4, 5), -torch.inf)
    log_p[:, :3] = torch.tensor([0.3, 0.3, 0.4]).log()
    canvas = blank(*[4] * 300, prompt=0, vocab=VOCAB)
    *_, before, last = Ancestral(3, greedy_tail=True).trajectory(Fixed(log_p, process), canvas, seeded(8))
    open_slots = process.asks(before.x, canvas.editable)
    assert (last.x[open_slots] == 2).all() and not (before.x[open_slots] == 2).all()
    assert torch.equal(last.x[~open_slots], before.x[~open_slots])


def test_the_nucleus_is_taken_of_the_belief() -> None:
    log_p = torch.full((3, 5), -torch.inf)
    log_p[:, :3] = torch.tensor([0.3, 0.1, 0.6]).log()
    canvas = blank(*[3] * 1000, prompt=0, vocab=VOCAB)
    tokens = Ancestral(4, Proposal(1.0, top_p=0.8)).sample(Fixed(log_p, uniform(VOCAB)), canvas, seeded(9)).flatten()
    assert chi_square(torch.bincount(tokens, minlength=5), torch.tensor([1 / 3, 0, 2 / 3, 0, 0]) * 3000) < SURPRISING


def test_a_schedule_that_rounds_to_clean_text_early_ends_there() -> None:
    canvas = blank(20, vocab=VOCAB)
    for kind in (MaskedDiffusion, UniformDiffusion):
        oracle = Oracle(torch.zeros_like(canvas.ids), kind(VOCAB, Polynomial(power=40.0)))
        assert (Ancestral(steps=16).sample(oracle, canvas, seeded(1))[canvas.editable] == 0).all()


def test_a_single_stride_draws_every_slot_by_itself() -> None:
    p, rows = random_joint(3, 3, seed=2), 5000
    joint = Joint(p, plain(VOCAB))
    texts = Ancestral(steps=1).sample(joint, blank(*[2] * rows, prompt=0, vocab=VOCAB), seeded(3))
    independent = p.sum(1)[:, None] * p.sum(0)[None, :]
    assert chi_square(joint.counts(texts), independent * rows) < SURPRISING
    assert chi_square(joint.counts(texts), p * rows) > SURPRISING


@pytest.mark.parametrize("schedule", [LogLinear(), Cosine(), Polynomial(power=3.0), Geometric()], ids=str)
def test_slots_are_revealed_when_the_schedule_says(schedule: NoiseSchedule) -> None:
    steps, rows = 8, 4000
    canvas = blank(*[1] * rows, prompt=0, vocab=VOCAB)
    oracle = Oracle(torch.zeros_like(canvas.ids), MaskedDiffusion(VOCAB, schedule))
    counts = torch.zeros(steps)
    for step in Ancestral(steps=steps).trajectory(oracle, canvas, seeded(5)):
        counts[step.index] = step.changed.sum()
    alpha = schedule.alpha(schedule.grid(steps))
    alpha[-1] = 1.0
    assert chi_square(counts, alpha.diff() / (1 - alpha[0]) * rows) < SURPRISING


@pytest.mark.parametrize("temperature", [0.0, 0.5, 2.0])
def test_a_temperature_sharpens_what_is_believed_and_not_the_path(temperature: float) -> None:
    log_p, rows = torch.full((1, 5), -torch.inf), 4000
    log_p[0, :3] = torch.tensor([0.5, 0.3, 0.2]).log()
    canvas = blank(*[1] * rows, prompt=0, vocab=VOCAB)
    tokens = Ancestral(4, Proposal(temperature)).sample(Fixed(log_p, plain(VOCAB)), canvas, seeded(6)).flatten()
    expected = torch.eye(5)[0] if temperature == 0 else (log_p[0] / temperature).softmax(-1)
    assert chi_square(torch.bincount(tokens, minlength=5), expected * rows) < SURPRISING


def test_the_last_stride_reveals_what_the_schedule_would_leave_hidden() -> None:
    canvas = blank(40, vocab=VOCAB)
    process = MaskedDiffusion(VOCAB, LogLinear(min_ratio=0.3, max_ratio=0.9))
    text = Ancestral(steps=2).sample(Oracle(torch.zeros_like(canvas.ids), process), canvas, seeded(7))
    assert not (text[canvas.editable] == VOCAB.mask_id).any()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 0}, "sampler.steps=0"),
        ({"noise": 0.0}, "sampler.noise=0.0 leaves nothing to do"),
    ],
)
def test_a_walk_that_leads_nowhere_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Ancestral(**options)
