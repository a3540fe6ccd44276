"""The teacher of a distillation: a network that stands still for a round, beside the module and never in it.

What a run must have again when it goes on is the teacher of its round, which no longer follows from the student's
weights. So each round begins by writing `teacher-ROUND.pt` beside the checkpoints, before any of them can need it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_lightning.backbone import Backbone
from dllm_lightning.checkpoints import NoModel, checkpoint_in, read_checkpoint, read_whole
from dllm_lightning.process import Process
from dllm_lightning.saving import LAST, PREVIOUS, WholeFiles
from dllm_lightning.types import Corrupted, Slots


class NoTeacher(ValueError):
    """There is nobody to learn from."""


class Teacher:
    """A copy of a network that believes and does not learn.

    It is no torch module, so that no parameter of it is optimised, sharded, averaged over ranks or saved with the
    student. `states` are the weights it takes over, by name; without them it starts as the student is.
    """

    def __init__(self, student: Backbone, states: Mapping[str, Tensor] | None = None) -> None:
        self.backbone = copy.deepcopy(student).eval().requires_grad_(False)
        if states is not None:
            self.backbone.load_state_dict(states)

    @torch.no_grad()
    def become(self, student: Backbone, average: Average | None) -> None:
        """Takes over the student's weights, or their average."""
        self.backbone.load_state_dict(student.state_dict())
        if average is not None:
            average.write_into(self.backbone)

    @torch.no_grad()
    def features(self, batch: Corrupted, process: Process) -> Float[Tensor, "N D"]:
        """What its decoder reads at the asked slots: all that is kept of it while the student is scored."""
        at, level = batch.slots().at, process.mask_ratio(batch.t)
        states = self.backbone.encode(batch.x_t, level, batch.clean.segment, batch.soft)
        return self.backbone.features(states.flatten(0, 1)[at])

    @torch.no_grad()
    def log_p_x0(self, features: Float[Tensor, "n D"], slots: Slots, process: Process) -> Float[Tensor, "n K"]:
        """Its belief at some of these slots."""
        return process.log_p_x0(self.backbone.decoder(features), slots)


class Average:
    """An exponential moving average of a network's parameters: a <- decay a + (1 - decay) theta, once per step."""

    def __init__(self, network: Backbone, decay: float, values: Mapping[str, Tensor] | None = None) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in network.named_parameters()}
        for name, value in (values or {}).items():
            self.values[name].copy_(value)

    @torch.no_grad()
    def update(self, network: Backbone) -> None:
        new = dict(network.named_parameters())
        torch._foreach_lerp_([*self.values.values()], [new[name].detach() for name in self.values], 1 - self.decay)

    def write_into(self, network: Backbone) -> None:
        for name, parameter in network.named_parameters():
            parameter.data.copy_(self.values[name])


def start_from(teacher: str, student: Backbone, process: Process, recipe: Mapping[str, Any]) -> None:
    """Gives the student the weights of a trained model: of a checkpoint, or of a run's folder (its best one).

    Raises NoModel where there is none, and NoTeacher for one of another process, tokenizer or size.
    """
    file = checkpoint_in(Path(teacher).expanduser(), called="model.teacher")
    checkpoint = read_whole(file)
    config, tokenizer = checkpoint["recipe"]["config"], checkpoint["recipe"]["tokenizer"]
    kind = str((config.get("process") or {}).get("_target_")).rpartition(".")[2]
    if kind != type(process).__name__:
        raise NoTeacher(
            f"model.teacher={teacher!r} was trained on {kind}, and the student is to learn {type(process).__name__}: "
            f"give a run of model=duo."
        )
    same = "give this run the backbone and the data that its teacher was trained with"
    if tokenizer.get("tokenizer.json") != recipe.get("tokenizer", tokenizer).get("tokenizer.json"):
        raise NoTeacher(f"model.teacher={teacher!r} reads with another tokenizer: {same}.")
    prefix = "backbone."
    weights = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    theirs, ours = ({k: [*v.shape] for k, v in each.items()} for each in (weights, student.state_dict()))
    if found := [name for name in sorted({*theirs, *ours}) if theirs.get(name) != ours.get(name)]:
        name, more = found[0], f" ({len(found)} such)" if len(found) > 1 else ""
        raise NoTeacher(
            f"model.teacher={teacher!r} is another network, with {name} of {theirs.get(name, 'no size')} where the "
            f"student has {ours.get(name, 'none')}{more}: {same}."
        )
    student.load_state_dict(weights)


def write_teacher(teacher: Teacher, folder: Path, number: int, recipe: dict[str, Any]) -> None:
    """Writes the teacher of a round as a checkpoint that can be asked like any other."""
    states = {f"backbone.{name}": value for name, value in teacher.backbone.state_dict().items()}
    WholeFiles().save_checkpoint({"recipe": recipe, "state_dict": states, "round": number}, _file(folder, number))


def forget_teachers(folder: Path, number: int, round_steps: int) -> None:
    """Deletes the teachers of rounds that neither this one nor last.ckpt or previous.ckpt goes on with."""
    needed = [number]
    for file in (folder / name for name in (LAST, PREVIOUS) if (folder / name).is_file()):
        try:
            needed.append(read_checkpoint(file).get("global_step", 0) // round_steps)
        except NoModel:  # a damaged one needs nobody
            continue
    for file in folder.glob("teacher-*.pt"):
        found = file.stem.removeprefix("teacher-")
        if found.isdigit() and int(found) < min(needed):
            file.unlink(missing_ok=True)


def read_teacher(folders: list[Path], number: int) -> dict[str, Tensor]:
    """The weights of the teacher of a round, from the first of the folders that has them.

    Raises NoTeacher when it is not there, or damaged.
    """
    files = [_file(folder, number) for folder in folders]
    file = next((each for each in files if each.is_file()), files[0])
    way_out = f"Without the teacher of round {number} this run cannot go on: resume=null starts anew."
    if not file.is_file():
        raise NoTeacher(f"There is no {str(file)!r}. {way_out}")
    try:
        states = read_whole(file)["state_dict"]
    except NoModel as error:
        raise NoTeacher(f"{str(error).removesuffix(' Choose another.')} {way_out}") from error
    return {name.removeprefix("backbone."): value for name, value in states.items()}


def _file(folder: Path, number: int) -> Path:
    return folder / f"teacher-{number}.pt"
