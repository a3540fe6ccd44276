"""python -m dllm_lightning.generate: ask a trained model, and watch the answer come out of noise."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from dllm_lightning.chosen import chosen, for_hydra
from dllm_lightning.launch import launch
from dllm_lightning.options import check_choices, check_counts, check_flags, check_seed

if TYPE_CHECKING:
    from omegaconf import DictConfig

VERBATIM = ("ckpt", "prompt", "fill", "prompts")


def main(
    cfg: DictConfig,
    ckpt: str | None = None,
    prompt: str | None = None,
    fill: str | None = None,
    prompts: str | None = None,
) -> None:
    """Answers one prompt, fills one text, goes through a file or the lines of a pipe, or talks at the keyboard."""
    if not (ckpt := ckpt or cfg.ckpt):
        raise ValueError("Nobody to ask: give ckpt=PATH, a checkpoint, the folder of a run, or a Hugging Face folder.")
    check(cfg)

    from dllm_lightning.prompts import asked, from_lines

    prompt, fill = cfg.prompt if prompt is None else prompt, cfg.fill if fill is None else fill
    several = asked(prompt, fill, prompts or cfg.prompts)

    import torch
    from hydra.utils import instantiate

    from dllm_lightning.device import place
    from dllm_lightning.loading import load
    from dllm_lightning.speaker import Speaker
    from dllm_lightning.terminal import Chat, console, output

    device = place(cfg.device)
    loaded = load(ckpt, device)
    trained = loaded.config.get("data") or {}
    speaker = Speaker(
        loaded.denoiser(instantiate(cfg.cache), cfg.compile),
        loaded.template,
        chosen(cfg.get("sampler"), loaded.sampler),
        cfg.length or trained.get("answer_length") or 64,
        torch.Generator(device).manual_seed(cfg.seed),
        loaded.longest,
    )
    form = cfg.format, cfg.seed, cfg.pause
    if several is not None:
        out = output(*form, echo=len(several) > 1 or sys.stdout.isatty())
        for start in range(0, len(several), cfg.batch_size):
            out.answers(speaker, several[start : start + cfg.batch_size])
    elif sys.stdin.isatty() and cfg.format != "json":
        Chat(console(), speaker, output(*form, echo=False), trained.get("max_length") or loaded.longest).run()
    else:
        out = output(*form, echo=False)
        for each in from_lines(sys.stdin, "standard input"):
            out.answers(speaker, [each])


def check(cfg: DictConfig) -> None:
    """Raises ValueError for an option without sense, before anything is loaded."""
    check_choices(cfg, format=("auto", "rich", "plain", "json"))
    check_flags(cfg, "compile")
    check_counts(cfg, "batch_size")
    check_counts(cfg, "length", null=True)
    check_seed(cfg)
    if type(cfg.pause) not in (int, float) or not 0 <= cfg.pause < math.inf:
        raise ValueError(f"pause={cfg.pause} is no time: give seconds, 0 or more.")


if __name__ == "__main__":
    sys.argv[1:] = for_hydra(sys.argv[1:])
    launch(main, config_name="generate", verbatim=VERBATIM)
