"""The data that a model is evaluated on: those it was trained on, other splits of them, or a file of somebody else.

Whatever the data, the tokenizer and the template are the model's own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from dllm_lightning.checkpoints import check_recipe
from dllm_lightning.data import ChatDataModule, TuluDataModule
from dllm_lightning.data.chat import Split
from dllm_lightning.data.rows import BadData
from dllm_lightning.evaluation.subject import Subject
from dllm_lightning.schema import check_values

FILES = f"{TuluDataModule.__module__.rpartition('.')[0]}.{TuluDataModule.__name__}"
SHARED = ("template", "max_length", "overlong", "answer_length")
"""What conversations from a file take over of the data that a model was trained on."""


def data_of(subject: Subject, options: DictConfig | None, split: Split) -> ChatDataModule:
    """The data of the command line, or the model's own, with what the command line changes in them.

    Of a file or a folder that is named (`data.path`) the split is taken, where it has one of that name; where it has
    training rows alone, all of them. Raises BadData where there are no data, no such split, or rows too long to read.
    """
    loaded = subject.loaded
    cfg = settled(loaded.config.get("data"), options)
    check_recipe([cfg], {})
    check_values(cfg, "data")
    data: Any = instantiate(cfg)
    data.template, data.tokenizer = loaded.template, loaded.template.tokenizer  # not those it would make
    if subject.longest is not None and data.max_length > subject.longest:
        raise BadData(
            f"data.max_length={data.max_length} is more than {subject.longest}, the longest row that this network "
            f"reads: give data.max_length={subject.longest} or less."
        )
    if isinstance(data, TuluDataModule):
        _take(data, split, options is not None and options.get("path") is not None)
    return data


def settled(own: DictConfig | None, options: DictConfig | None) -> DictConfig:
    """The configuration of the data: another one, the model's own, or what is written in a file."""
    if options is not None and "_target_" in options:
        return _copy(options)
    known = own is not None and own.get("_target_") is not None
    if not known and (options is None or options.get("path") is None):
        raise BadData("This model does not say what it was trained on: give data.path=FILE, or data=toy.")
    cfg = DictConfig({}) if own is None else _copy(own)
    if options is None:
        return cfg
    if options.get("path") is not None and (not known or "path" not in cfg):
        cfg = DictConfig({"_target_": FILES, **{name: cfg[name] for name in SHARED if name in cfg}})
    return DictConfig(OmegaConf.merge(cfg, options))


def _copy(cfg: DictConfig) -> DictConfig:
    """With nothing left in it to resolve."""
    return DictConfig(OmegaConf.to_container(cfg, resolve=True))


def _take(data: TuluDataModule, split: Split, named: bool) -> None:
    """Raises BadData unless there are rows of this split; of data that were `named` it takes them alone.

    Where no splits are told apart there, all rows are.
    """
    rows = [source.splits.get(split) for source in data.sources]
    if named:
        plain = [source.splits["train"] if {*source.splits} == {"train"} else None for source in data.sources]
        rows = [own or other for own, other in zip(rows, plain, strict=True)]
    if not any(rows) and (named or split == "test"):  # training rows give some for validation, in a way of their own
        known = ", ".join(sorted({name for source in data.sources for name in source.splits}))
        raise BadData(f"The data have no {split} split, only {known}: give another split.")
    if named:
        pairs = zip(data.sources, rows, strict=True)
        data.sources = [replace(source, splits={split: each}) for source, each in pairs if each is not None]
        data.streaming = False
