"""python -m dllm_lightning.generate: ask a trained model, and watch the answer come out of noise."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

from dllm_lightning.launch import launch
from dllm_lightning.mistakes import no_such_key

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from dllm_lightning.sampler import Sampler
    from dllm_lightning.terminal import Output

FORMATS = ("auto", "rich", "plain", "json")
VERBATIM = ("ckpt", "prompt", "prompts")


def main(cfg: DictConfig, ckpt: str | None = None, prompt: str | None = None, prompts: str | None = None) -> None:
    """Answers one prompt, a file of them, the lines of a pipe, or whatever is asked at the keyboard."""
    ckpt, prompt, prompts = ckpt or cfg.ckpt, prompt if prompt is not None else cfg.prompt, prompts or cfg.prompts
    if not ckpt:
        raise ValueError("Nobody to ask: give ckpt=PATH, a checkpoint, the folder of a run, or a Hugging Face folder.")
    if prompt is not None and prompts is not None:
        raise ValueError(f"prompt={prompt!r} and prompts={prompts!r} both ask: give one of them.")
    check(cfg)

    from dllm_lightning.prompts import from_file, from_lines, one

    asked = [one(prompt)] if prompt is not None else from_file(prompts) if prompts is not None else None

    import torch

    from dllm_lightning.loading import load
    from dllm_lightning.speaker import Speaker
    from dllm_lightning.terminal import Chat

    device = place(cfg.device)
    loaded = load(ckpt, device)
    positions = readable(loaded.backbone)
    trained = loaded.config.get("data") or {}
    speaker = Speaker(
        loaded.denoiser(),
        loaded.template,
        chosen(cfg.get("sampler"), loaded.sampler),
        cfg.length or trained.get("answer_length") or 64,
        torch.Generator(device).manual_seed(cfg.seed),
        positions,
    )
    if asked is not None:
        out = output(cfg, echo=len(asked) > 1 or sys.stdout.isatty())
        for start in range(0, len(asked), cfg.batch_size):
            out.answers(speaker, asked[start : start + cfg.batch_size])
    elif sys.stdin.isatty() and cfg.format != "json":
        Chat(console(), speaker, output(cfg, echo=False), trained.get("max_length") or positions).run()
    else:
        out = output(cfg, echo=False)
        for conversation in from_lines(sys.stdin, "standard input"):
            out.answers(speaker, [conversation])


def check(cfg: DictConfig) -> None:
    """Raises ValueError for an option without sense, before anything is loaded."""
    for name in ("length", "batch_size"):
        value = cfg[name]
        if not (type(value) is int and value >= 1) and not (name == "length" and value is None):
            raise ValueError(f"{name}={value} is no number of things: give a whole number, 1 or more.")
    if type(cfg.seed) is not int or not 0 <= cfg.seed < 2**63:
        raise ValueError(f"seed={cfg.seed} is no seed: give a whole number, from 0 to {2**63 - 1}.")
    if type(cfg.pause) not in (int, float) or not 0 <= cfg.pause < math.inf:
        raise ValueError(f"pause={cfg.pause} is no time: give seconds, 0 or more.")
    if cfg.format not in FORMATS:
        raise ValueError(f"format={cfg.format} is unknown: choose one of {', '.join(FORMATS)}.")


def place(name: str) -> torch.device:
    """Where to compute. Raises ValueError for a device that is not here."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.Generator(torch.empty(0, device=name).device).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"There is no device={name} here: give auto or cpu, or cuda where there is a GPU.") from error


def chosen(options: DictConfig | None, own: Sampler) -> Sampler:
    """The sampler of the command line, or the model's own, with what the command line changes in it."""
    if options is None:
        return own
    if "_target_" in options:
        from hydra.utils import instantiate

        return instantiate(options)

    return changed(own, options, "sampler")


def changed(part: Any, options: DictConfig, key: str) -> Any:
    """A part with other values for these options, some of which may be parts themselves: `sampler.low.eta=0.02`.

    Raises ValueError for an option that the part does not have.
    """
    import dataclasses

    from hydra.utils import instantiate

    own = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    new: dict[str, Any] = {}
    for name, value in ((str(name), value) for name, value in options.items()):
        inside = f"{key}.{name}"
        if name not in own:
            raise ValueError(no_such_key(inside, [f"{key}.{each}" for each in own]))
        if hasattr(value, "items") and not dataclasses.is_dataclass(own[name]):
            raise ValueError(f"{inside}={own[name]} is a value and has no options: give another value.")
        if hasattr(value, "items"):
            new[name] = instantiate(value) if "_target_" in value else changed(own[name], value, inside)
        else:
            new[name] = value
    return dataclasses.replace(part, **new)


def output(cfg: DictConfig, echo: bool) -> Output:
    """The form in which answers leave: live where somebody watches, plain text where not."""
    from dllm_lightning.terminal import JsonOutput, LiveOutput, PlainOutput

    if cfg.format == "json":
        return JsonOutput(sys.stdout, cfg.seed)
    if cfg.format == "rich" or (cfg.format == "auto" and sys.stdout.isatty()):
        return LiveOutput(console(), cfg.pause, echo)
    return PlainOutput(sys.stdout, echo)


def console() -> Any:
    """Standard output, where markup and emoji codes in a text are just text."""
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False)


def readable(backbone: Any) -> int | None:
    """The longest row that the network has positions for, where it says so."""
    return getattr(getattr(getattr(backbone, "network", None), "config", None), "max_position_embeddings", None)


def own_sampler(arguments: list[str]) -> list[str]:
    """`sampler.steps=8` without a `sampler=...` is about the model's own sampler, unknown to Hydra."""
    named = any(argument.startswith("sampler=") for argument in arguments)
    return [f"++{each}" if each.startswith("sampler.") and not named else each for each in arguments]


if __name__ == "__main__":
    sys.argv[1:] = own_sampler(sys.argv[1:])
    launch(main, config_name="generate", verbatim=VERBATIM)
