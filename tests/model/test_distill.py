"""Distillation: rounds and strides, a teacher that stands still, and a run that goes on as if never killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dllm_lightning.backbone import Backbone
from dllm_lightning.checkpoints import NoModel
from dllm_lightning.loss import Consistency
from dllm_lightning.model import Duo, DuoDistill
from dllm_lightning.model.teacher import NoTeacher
from dllm_lightning.noise import LogLinear
from dllm_lightning.process import UniformDiffusion
from tests.backbone.nets import modernbert
from tests.model.parts import ADAMW, VOCAB, Data, canvas, documents, fit, gradients, quiet

DUO = "dllm_lightning.process.UniformDiffusion"
RECIPE: dict[str, Any] = {"config": {"process": {"_target_": DUO}}, "backbone": {}, "tokenizer": {}}
ROWS = canvas(documents(6))
DELTA = 1 / 64


def network(seed: int = 0, **options: Any) -> Backbone:
    return modernbert(seed, chunk=32, time_conditioning=True, **options)


def trained(folder: Path, backbone: Backbone | None = None, process: str = DUO, **files: str) -> str:
    """The checkpoint of a Duo, which its weights alone make one."""
    states = {f"backbone.{name}": value for name, value in (backbone or network()).state_dict().items()}
    recipe = RECIPE | {"config": {"process": {"_target_": process}}, "tokenizer": files}
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"recipe": recipe, "state_dict": states}, folder / "last.ckpt")
    return str(folder)


def module(folder: Path, backbone: Backbone | None = None, kl: Any = "backward", **options: Any) -> DuoDistill:
    """Its weights come from the checkpoint, whatever it is built with."""
    options = {"teacher": trained(folder / "duo"), "round_steps": 2, "delta": DELTA, "recipe": RECIPE} | options
    process, loss = UniformDiffusion(VOCAB, LogLinear()), Consistency(kl=kl)
    return DuoDistill(process, backbone or network(seed=7), loss, ADAMW, **options)


class Watch(L.Callback):
    """What the round is at each batch, and whose weights the teacher has."""

    def __init__(self) -> None:
        self.strides: list[float] = []
        self.students: list[list[Tensor]] = []
        self.teachers: list[list[Tensor]] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        self.strides.append(pl_module.stride)
        self.students.append(weights(pl_module.backbone))
        self.teachers.append(weights(pl_module.teacher.backbone))


class SaveAt(L.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt")


def weights(backbone: Any) -> list[Tensor]:
    return [p.detach().clone() for p in backbone.parameters()]


def equal(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def run(model: DuoDistill, folder: Path, steps: int, ckpt: Path | None = None, *callbacks: L.Callback) -> Watch:
    """So many steps on the same rows; the noise is fresh in each."""
    watch = Watch()
    trainer = quiet(folder, callbacks=[watch, *callbacks], max_steps=steps)
    trainer.fit(model, Data([ROWS] * 12), ckpt_path=ckpt, weights_only=True)
    return watch


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DuoDistill, Watch]:
    """A run of five steps in rounds of two that left a checkpoint in the middle of its second round."""
    folder = tmp_path_factory.mktemp("whole")
    model = module(folder)
    return folder, model, run(model, folder, 5, None, SaveAt(3))


def test_each_round_begins_with_the_student_as_teacher_and_twice_the_stride(whole: Any) -> None:
    _, _, watch = whole
    assert watch.strides == [DELTA, DELTA, 2 * DELTA, 2 * DELTA, 4 * DELTA]
    assert [equal(*pair) for pair in zip(watch.students, watch.teachers, strict=True)] == [True, False] * 2 + [True]
    assert equal(watch.teachers[2], watch.teachers[3]) and not equal(watch.teachers[1], watch.teachers[2])


def test_student_and_first_teacher_are_the_trained_duo(whole: Any) -> None:
    _, _, watch = whole
    assert equal(watch.students[0], weights(network())) and not equal(watch.students[0], weights(network(seed=7)))


def test_strides_grow_no_longer_than_the_trajectory(tmp_path: Path) -> None:
    model, steps = module(tmp_path, delta=0.3, growth="linear"), [0, 2, 4, 6, 200_000]
    model._trainer = type("Trainer", (), {"global_step": 0})()  # type: ignore[assignment]
    strides = []
    for model._trainer.global_step in steps:  # type: ignore[misc]
        strides.append(model.stride)
    assert_close(strides, [0.3, 0.6, 0.9, 1.0, 1.0])
    model.growth = "doubling"
    assert model.stride == 1.0


def test_the_teacher_is_no_part_of_what_is_trained_or_saved(whole: Any) -> None:
    folder, model, _ = whole
    duo = Duo(UniformDiffusion(VOCAB, LogLinear()), network(), Consistency(), ADAMW)  # type: ignore[arg-type]
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["state_dict"].keys() == model.state_dict().keys() == duo.state_dict().keys()
    assert len([*model.parameters()]) == len([*duo.parameters()])
    assert not any(p.requires_grad for p in model.teacher.backbone.parameters())


def test_a_run_that_was_killed_in_a_round_goes_on_bit_for_bit(whole: Any, tmp_path: Path) -> None:
    """Though its teacher follows from nothing that the checkpoint holds, and the first one has changed since."""
    folder, model, watch = whole
    again = module(tmp_path, teacher=trained(tmp_path / "other", network(seed=3)))
    resumed = run(again, tmp_path / "run", 5, folder / "checkpoints" / "last.ckpt")
    assert equal(resumed.teachers[0], watch.teachers[3]) and resumed.strides == watch.strides[3:]
    assert equal(weights(again.backbone), weights(model.backbone))


def test_the_average_of_the_student_teaches_and_goes_on_too(tmp_path: Path) -> None:
    """a <- d a + (1 - d) theta after each step, from the first teacher on."""
    model = module(tmp_path, teacher_ema=0.75)
    watch = run(model, tmp_path, 5, None, SaveAt(3))
    average = watch.students[0]
    for student in watch.students[1:3]:
        average = [0.75 * a + 0.25 * theta for a, theta in zip(average, student, strict=True)]
    assert_close(watch.teachers[2], average)
    assert not equal(watch.teachers[2], watch.students[2])
    again = module(tmp_path, teacher_ema=0.75)
    resumed = run(again, tmp_path, 5, tmp_path / "checkpoints" / "last.ckpt")
    assert equal(weights(again.backbone), weights(model.backbone))
    assert equal(resumed.teachers[-1], watch.teachers[-1])


def test_teachers_are_kept_as_long_as_a_checkpoint_needs_them(whole: Any) -> None:
    """last.ckpt is of round 1; round 2 has begun since, and nothing goes on with round 0."""
    folder, _, watch = whole
    kept = sorted(file.name for file in (folder / "checkpoints").iterdir())
    assert kept == ["last.ckpt", "teacher-1.pt", "teacher-2.pt"]
    states = torch.load(folder / "checkpoints" / "teacher-1.pt", weights_only=True)["state_dict"]
    names = [f"backbone.{name}" for name, _ in network().named_parameters()]
    assert equal([states[name] for name in names], watch.teachers[3])


def test_without_its_teacher_a_run_does_not_go_on(whole: Any, tmp_path: Path) -> None:
    folder, _, _ = whole
    alone = tmp_path / "checkpoints" / "last.ckpt"
    alone.parent.mkdir()
    alone.write_bytes((folder / "checkpoints" / "last.ckpt").read_bytes())
    with pytest.raises(NoTeacher, match=r"There is no '.*teacher-1\.pt'\. Without the teacher of round 1"):
        run(module(tmp_path), tmp_path, 5, alone)
    spoilt = bytearray((folder / "checkpoints" / "teacher-1.pt").read_bytes())
    spoilt[len(spoilt) // 2] ^= 0xFF
    (alone.parent / "teacher-1.pt").write_bytes(spoilt)
    with pytest.raises(NoTeacher, match=r"teacher-1\.pt' is damaged .* resume=null starts anew\.$"):
        run(module(tmp_path), tmp_path, 5, alone)


@pytest.mark.parametrize("kl", ["backward", "forward"])
def test_the_gradient_is_that_of_the_mean_divergence_written_out(tmp_path: Path, kl: str) -> None:
    """Without chunks: whole tables of logits, and the mean over all editable slots."""
    step = fit(module(tmp_path, kl=kl, delta=0.25), Data([ROWS]), tmp_path)  # type: ignore[arg-type]
    model = module(tmp_path, kl=kl, delta=0.25)
    quiet(tmp_path, max_steps=0).fit(model, Data([ROWS]))  # so that it has a trainer
    noisy, process = model.corrupt(ROWS), model.training_process
    cleaner = model.trajectory.at(ROWS, noisy.t - 0.25, model.draws(ROWS))
    never = torch.zeros(VOCAB.size).index_fill(0, model.process.never, -torch.inf)
    p, q = ((model(batch, process) + never).softmax(-1)[:, model.process.states] for batch in (noisy, cleaner))
    p, q = (q.detach(), p) if kl == "forward" else (p, q.detach())
    mean = (p * (p.log() - q.log())).sum() / ROWS.editable.sum()
    mean.backward()
    assert_close(step["losses"], [mean.item()], rtol=1e-4, atol=1e-7)
    for name, gradient in gradients(model).items():
        assert (step["gradients"][0][name] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-7, name
    assert not noisy.x_t.equal(cleaner.x_t)


def test_with_no_stride_a_student_has_nothing_to_learn_from_itself(tmp_path: Path) -> None:
    model = module(tmp_path)
    model.delta = 0.0
    step = fit(model, Data([ROWS]), tmp_path)  # type: ignore[arg-type]
    assert_close(step["losses"], [0.0], rtol=0, atol=1e-6)
    assert all(gradient.abs().max() < 1e-5 for gradient in step["gradients"][0].values())


def test_two_ranks_learn_what_one_would(tmp_path: Path) -> None:
    """Rows, noise and teachers; two rounds of one step, of which each rank has half."""
    rows = documents(8)
    halves = [[canvas(rows[:4], extra=9)] * 2, [canvas(rows[4:], extra=9)] * 2]
    length = max(half[0].ids.shape[1] for half in halves)
    halves = [[canvas(part, extra=length - max(len(ids) for ids, _ in part))] * 2 for part in (rows[:4], rows[4:])]
    one = [canvas(rows, extra=length - max(len(ids) for ids, _ in rows))] * 2
    models = [module(tmp_path, round_steps=1) for _ in range(2)]
    both = fit(models[0], Data(*halves), tmp_path / "both", devices=2, strategy="ddp_fork")  # type: ignore[arg-type]
    single = fit(models[1], Data(one), tmp_path / "one")  # type: ignore[arg-type]
    # AdamW's first step is as long where a gradient is but rounding, so the second starts a little apart.
    for step, tolerance in enumerate((1e-4, 2e-3)):
        assert both["losses"][step] == pytest.approx(single["losses"][step], rel=tolerance)
        for name, ours in both["gradients"][step].items():
            theirs = single["gradients"][step][name]
            assert (ours - theirs).norm() <= 10 * tolerance * theirs.norm() + 1e-7, name
    assert (tmp_path / "both" / "checkpoints" / "teacher-2.pt").is_file()


def test_a_teacher_is_one_that_the_student_can_learn_from(tmp_path: Path) -> None:
    with pytest.raises(NoTeacher, match=r"nobody to learn from: give model\.teacher=RUN"):
        module(tmp_path, teacher=None)
    with pytest.raises(NoModel, match=r"nothing at model\.teacher='nowhere': give a checkpoint or the folder"):
        module(tmp_path, teacher="nowhere")
    masked = trained(tmp_path / "mdm", process="dllm_lightning.process.MaskedDiffusion")
    with pytest.raises(NoTeacher, match=r"trained on MaskedDiffusion, and the student is to learn UniformDiffusion"):
        module(tmp_path, teacher=masked)
    wide = trained(tmp_path / "wide", network(sizes={"intermediate_size": 64}))
    with pytest.raises(NoTeacher, match=r"another network, with \S+ of \[\d+, \d+\] where the student has"):
        module(tmp_path, teacher=wide)
    words = trained(tmp_path / "words", **{"tokenizer.json": "{}"})
    with pytest.raises(NoTeacher, match="reads with another tokenizer: give this run the backbone and the data"):
        module(tmp_path, teacher=words)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("round_steps", 0, "a round has at least 1 optimizer step"),
        ("delta", 0.0, "is no stride"),
        ("delta", 1.5, "is no stride"),
        ("growth", "wild", "is no growth: choose doubling or linear"),
        ("teacher_ema", 1.0, "averages nothing"),
        ("alpha_range", [0.5], "is no range"),
    ],
)
def test_numbers_that_make_no_rounds_are_refused(tmp_path: Path, option: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=rf"model\.{option}=.*{said}"):
        module(tmp_path, **{option: value})
