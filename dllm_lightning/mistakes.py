"""What the user got wrong, in one sentence, with the nearest right name."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import CodeType

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, MissingMandatoryValue
from omegaconf.errors import OmegaConfBaseException

PACKAGE = Path(__file__).resolve().parent
EXTRAS = {
    "hydra/sweeper/optuna": "search",
    "hydra/launcher/submitit_slurm": "slurm",
    "hydra/launcher/submitit_local": "slurm",
}
"""What of Hydra's household comes with an extra of this package."""


def sentence(error: BaseException, conf: Path, config_name: str, overrides: Sequence[str]) -> str | None:
    """What to tell the user, or None for an error that is no mistake of theirs and deserves its traceback."""
    match error:
        case OverrideParseException():
            return _unreadable(error.override)
        case MissingConfigException() if extra := EXTRAS.get(error.missing_cfg_file or ""):
            return f"{error.missing_cfg_file} is not installed: pip install 'dllm-lightning[{extra}]'."
        case MissingConfigException():
            return _no_option(error, conf)
        case ValueError() if str(error).startswith("No trials are completed"):  # Optuna's last word
            return "No trial of the search came to its end; the table says why."
        case ConfigCompositionException() if found := re.search(r"[Cc]ould not override '([^']+)'", str(error)):
            return no_such_key(found[1], _keys(found[1], conf, config_name, overrides))
        case ValueError() if str(error).startswith("Config group override must be"):
            return _no_null(overrides)
        case ConfigCompositionException() if found := re.search(r"Ambiguous value for argument '(.+?)'\n", str(error)):
            return _several(found[1])
        case InstantiationException() if isinstance(error.__cause__, Exception):
            ours = _raised_here(error.__cause__)
            found = re.search(r"full_key: (\S+)", str(error))
            said = sentence(error.__cause__, conf, config_name, overrides) if ours or not found else None
            return said or _unbuilt(found[1] if found else "A part", error.__cause__)
        case MissingMandatoryValue():
            key = getattr(error, "full_key", None) or getattr(error, "key", None)
            return f"{key} has no value: give {key}=VALUE."
        case HydraException() if error.__cause__ is not None:
            return sentence(error.__cause__, conf, config_name, overrides) or _line(error)
        case OmegaConfBaseException() if found := re.search(r"^(?:.* k|K)ey '(\w+)' (?:is )?not", str(error)):
            return f"{found[1]} is needed, and was taken out: leave ~{found[1]} away."
        case HydraException() | OmegaConfBaseException():
            return _line(error)
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"There is no room left on the disk{f' for {error.filename}' if error.filename else ''}: make some."
        case OSError() if error.filename is not None and _raised_by(error, "mkdir", "makedirs"):
            why = f"The folder {str(error.filename)!r} cannot be made ({error.strerror})"
            return f"{why}: choose another place, as with run=NAME or hydra.run.dir=FOLDER."
        case OSError() if error.filename is not None and error.strerror is not None:
            return f"{error.strerror}: {str(error.filename)!r}."
        case ValueError() | OSError() if _raised_here(error):
            return _line(error)
        case _ if type(error).__name__ == "MisconfigurationException":  # Lightning's own word for it
            return _line(error)
        case ValueError() if "`val_check_interval`" in str(error):  # Lightning's too, when it has counted the batches
            return _line(error)
        case _ if type(error).__module__.partition(".")[0] == "wandb":
            return f"W&B cannot be used ({_line(error)}): give logger.mode=offline, or another logger."
        case _ if isinstance(error, MemoryError) or re.search("allocate memory|out of memory", str(error)):
            return "There is not enough memory: lower data.batch_size, data.max_length or backbone.chunk."
        case _ if type(error).__name__ == "ProcessRaisedException":  # of a process that was forked to train
            return _told_elsewhere(str(error))
    return None


def _unbuilt(key: str, error: Exception) -> str:
    if found := re.search(r"unexpected keyword argument '(\w+)'", str(error)):
        return f"There is no option '{key}.{found[1]}': leave it out."
    return f"{key} cannot be built like this: {_line(error)[:300].rstrip('.')}."


def no_such_key(key: str, keys: Iterable[str]) -> str:
    """The sentence for a dotted key that is none of the known ones: the nearest names, at its own level first."""
    keys = sorted({*keys} - {key})
    parent, _, last = key.rpartition(".")
    siblings = {known.rpartition(".")[2]: known for known in keys if known.rpartition(".")[0] == parent}
    close = [siblings[name] for name in difflib.get_close_matches(last, siblings)]
    namesakes = [known for known in keys if known.rpartition(".")[2] == last]
    if not parent:
        close += difflib.get_close_matches(key, keys)
    if found := list(dict.fromkeys(namesakes + close))[:3]:
        return f"There is no option {key!r}. Did you mean {_either(found)}?"
    known = f"{parent} has {', '.join(sorted(siblings))}." if parent and siblings else "--help lists the options."
    return f"There is no option {key!r}. {known}"


def _no_option(error: MissingConfigException, conf: Path) -> str:
    """No file of this name in a group: sampler=confidnce."""
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    options = error.options or [file.stem for file in (conf / group).glob("*.yaml")]
    if not group or not options:
        return _line(error)
    close = difflib.get_close_matches(option, options)
    hint = f"Did you mean {_either(close)}?" if close else f"Choose one of {', '.join(sorted(options))}."
    return f"There is no {group}={option}. {hint}"


def _no_null(overrides: Sequence[str]) -> str:
    """A group cannot be null, though many options can: logger=null."""
    for key, _, value in (override.partition("=") for override in overrides):
        if value in ("", "null"):
            return f"{key}={value} chooses nothing: write ~{key} to do without, or choose one that --help lists."
    return "A group needs the name of one of its options: --help lists them."


def _unreadable(override: str) -> str:
    """Hydra's grammar has no place for it."""
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override!r} is no override: write KEY=VALUE, as in sampler.steps=16."
    return f"The value of {key} cannot be read: {value!r}. Put it in quotes of its own: {key}='\"...\"'."


def _several(override: str) -> str:
    """A comma outside a sweep."""
    key, _, value = override.partition("=")
    return f"{override} names several values: add --multirun to try each, or write {key}=\"'{value}'\" for one."


def _keys(wrong: str, conf: Path, config_name: str, overrides: Sequence[str]) -> list[str]:
    """Every dotted key of the configuration without the wrong one, and the groups there are."""
    right = [each for each in overrides if not each.startswith("-") and each.lstrip("+~").partition("=")[0] != wrong]
    cfg = _composed(conf, config_name, right) or _composed(conf, config_name, [])
    groups = [str(folder.relative_to(conf)) for folder in conf.rglob("*") if folder.is_dir()]
    return [*(_flat(cfg) if cfg is not None else ()), *groups]


def _composed(conf: Path, config_name: str, overrides: list[str]) -> DictConfig | None:
    try:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf), version_base="1.3"):
            return compose(config_name, overrides)
    except Exception:  # a second mistake: then the names come from the defaults
        return None


def _flat(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in (str(name) for name in cfg if not str(name).startswith("_")):
        yield f"{prefix}{key}"
        node = cfg._get_node(key)
        if isinstance(node, DictConfig) and not (node._is_none() or node._is_missing() or node._is_interpolation()):
            yield from _flat(node, f"{prefix}{key}.")


def _told_elsewhere(traceback: str) -> str | None:
    """The sentence at the end of another process's traceback, if this package raised it."""
    frames = re.findall(r'^ *File "(.+?)", line \d+', traceback, re.MULTILINE)
    found = re.search(r"^dllm_lightning[\w.]*: (.+)\Z|^ValueError: (.+)\Z", traceback.strip(), re.MULTILINE | re.DOTALL)
    if not found or not frames or not Path(frames[-1]).is_relative_to(PACKAGE):
        return None
    return " ".join((found[1] or found[2]).split())


def _line(error: BaseException) -> str:
    """The message on one line, without the appendix that OmegaConf and Hydra put below theirs."""
    message = re.split(r"\n\s*(?:full_key|object_type|reference_type|Config search path)\b", str(error))[0]
    return " ".join(message.split())


def _either(names: Sequence[str]) -> str:
    return " or ".join(names)


def _raised_by(error: BaseException, *functions: str) -> bool:
    return (code := _code(error)) is not None and code.co_name in functions


def _raised_here(error: BaseException) -> bool:
    """Whether the error was raised by this package, and not by something below that met a surprise."""
    return (code := _code(error)) is not None and Path(code.co_filename).is_relative_to(PACKAGE)


def _code(error: BaseException) -> CodeType | None:
    """The function that raised it."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return None if traceback is None else traceback.tb_frame.f_code
