"""Constructors are the schema: each value of a configuration is held against the parameter it will become.

This happens before anything is built, so `trainer.max_steps=abc` is told in a sentence, and not by an exception from
deep inside a library. An annotation that says too much for the few words that are known here lets every value pass.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from dllm_lightning.mistakes import no_such_key

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null"}


class WrongValue(ValueError):
    """A value of a configuration that its parameter cannot take, or that no parameter waits for."""


def check_values(cfg: DictConfig, key: str = "") -> None:
    """Raises WrongValue for the first value that its parameter cannot take, and for one that no parameter waits for."""
    known, more = parameters(get_object(cfg._target_)) if "_target_" in cfg else (None, True)
    for name, value in _values(cfg):
        full = f"{key}.{name}" if key else name
        if known is not None and name not in known and not more:
            raise WrongValue(no_such_key(full, [f"{key}.{each}" for each in known]))
        if isinstance(value, DictConfig) and (known is None or "_target_" in value):
            check_values(value, full)
        elif known is not None and not takes(hint := known.get(name, Any), value := _plain(value)):
            if _is_part(hint):
                raise WrongValue(f"{full}={value!r} is no part: choose one by {full.replace('.', '/')}=NAME (--help).")
            raise WrongValue(f"{full}={value!r} is of the wrong kind: give {_wanted(hint)}.")


def parameters(target: Callable[..., Any]) -> tuple[dict[str, Any], bool]:
    """The parameters of a class or function with their annotations, and whether it takes any others too.

    `**options` of a class are the parameters of the class it inherits from.
    """
    found: dict[str, Any] = {}
    for function in _constructors(target):
        written = inspect.signature(function).parameters.values()
        try:
            hints = get_type_hints(target if is_dataclass(target) else function)
        except Exception:  # a name that exists for type checkers alone
            hints = {}
        for each in written:
            if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY) and each.name != "self":
                found.setdefault(each.name, hints.get(each.name, Any))
        if all(each.kind != each.VAR_KEYWORD for each in written):
            return found, False
    return found, True


def takes(hint: Any, value: Any) -> bool:
    """Whether a parameter with this annotation can take a value as it comes out of YAML."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(takes(each, value) for each in inner)
    if origin is Literal:
        return value in inner
    if hint in WORDS:
        number = (int, float) if hint is float else hint
        finite = not isinstance(value, float) or math.isfinite(value)  # nan and inf are words of YAML too
        return isinstance(value, number) and finite and (hint is bool or not isinstance(value, bool))
    if not isinstance(origin or hint, type) or hint is object:
        return True
    if _is_part(hint):
        return False  # a part has a _target_, and is looked into
    kind = origin or hint
    if issubclass(kind, Sequence):
        inner = (inner[0],) * len(value) if isinstance(value, list) and inner and inner[-1] is not ... else inner
        return isinstance(value, list) and all(takes(*pair) for pair in zip(inner, value, strict=False))
    return not issubclass(kind, Mapping) or isinstance(value, Mapping)


def _is_part(hint: Any) -> bool:
    """Whether a parameter takes an object of this package, or what makes one."""
    kind = get_origin(hint) or hint
    return kind is Callable or getattr(kind, "__module__", "").partition(".")[0] == __package__


def _constructors(target: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """What is called with the parameters: the function itself, or __init__ of a class and of those above it."""
    if not inspect.isclass(target):
        yield inspect.unwrap(target)
        return
    for kind in target.__mro__:
        if "__init__" in vars(kind) and kind is not object:
            yield inspect.unwrap(vars(kind)["__init__"])


def _values(cfg: DictConfig) -> Iterator[tuple[str, Any]]:
    """The values that are there; what depends on the run (`${folder}`) shows only later."""
    for name in map(str, cfg):
        if not name.startswith("_") and not OmegaConf.is_interpolation(cfg, name):
            yield name, cfg[name]


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _wanted(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(_wanted, inner)))
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    if hint in WORDS:
        return WORDS[hint]
    if isinstance(origin or hint, type) and issubclass(origin or hint, Sequence):
        return "a list" + (f" ({_wanted(inner[0])} each)" if inner else "")
    return "a mapping" if isinstance(origin or hint, type) and issubclass(origin or hint, Mapping) else str(hint)
