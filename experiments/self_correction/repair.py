"""Who repairs a right answer in which some tokens have been replaced by random ones?

python experiments/self_correction/repair.py --duo runs/quickstart_duo --mdm runs/quickstart

Unseen questions of the toy chat with one right answer. Between 10 and 30 percent of the answer's slots, its end and
what follows it included, and one of them at the least, show another random token. Each sampler gets that text as its
draft, and is told the share of wrong slots where it can use it. Nothing says which slots are wrong.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import torch

from dllm_lightning.data.toy import generate
from dllm_lightning.loading import Loaded, load
from dllm_lightning.sampler import Ancestral, Proposal, Psi, Refine, Reveal, Sampler
from dllm_lightning.sampler.kappa import Conf, Fixed
from dllm_lightning.sampler.profile import Plateau
from dllm_lightning.types import Canvas

SHARES = (0.1, 0.2, 0.3)
ONE_ANSWER = ["copy", "reverse", "sort", "larger", "fact", "after", "odd", "add"]
"""Tasks with one right answer, so that what is not it is wrong."""


def ways(share: float) -> Iterator[tuple[str, str, Sampler]]:
    """(model, name, sampler)"""
    yield "duo", "refine", Refine(tokens_per_step=1, noise=share)
    yield "duo", "refine, own token counts", Refine(tokens_per_step=1, noise=share, evidence=True)
    yield "duo", "ancestral, 32 steps", Ancestral(steps=32, greedy_tail=True, noise=share)
    held, drawn = Plateau(level=1 - share, high=0.0, middle=0.8), Proposal(1.0, top_p=0.9)
    yield (
        "mdm",
        "ReMDM loop, 64 steps",
        Psi(64, drawn, profile=held, middle=Fixed(0.1), noise=share),
    )
    yield (
        "mdm",
        "ReMDM conf, 64 steps",
        Psi(64, drawn, profile=held, middle=Conf(), noise=share),
    )
    yield "mdm", "confidence (nothing is masked)", Reveal()


def main() -> None:
    parser = argparse.ArgumentParser(description="Who repairs a right answer with random tokens in it?")
    parser.add_argument("--duo", required=True, help="the folder of a run of experiment=quickstart_duo")
    parser.add_argument("--mdm", required=True, help="the folder of a run of experiment=quickstart")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    models = {"duo": load(options.duo), "mdm": load(options.mdm)}
    rows = [repaired(models, share, seed, options.questions) for share in SHARES for seed in range(3)]
    with (options.out / "repair.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["share", "seed", "model", "sampler", "whole", "restored", "broken", "calls"])
        writer.writerows(row for several in rows for row in several)


def repaired(models: dict[str, Loaded], share: float, seed: int, questions: int) -> list[list[object]]:
    """For each way: answers that are right again, replaced slots restored, right slots broken, network calls."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    conversations = [row["messages"] for row in generate("test", questions, tasks=ONE_ANSWER)]
    canvas, clean = texts(models["duo"], conversations)
    slots = canvas.editable.sum(1)
    wrong = torch.zeros_like(canvas.editable)
    for row, many in enumerate((share * slots).round().clamp(min=1).long().tolist()):
        places = canvas.editable[row].nonzero().squeeze(1)
        wrong[row, places[torch.randperm(len(places), generator=generator)[:many]]] = True
    process = models["duo"].process
    states = process.states  # type: ignore[attr-defined]
    other = torch.randint(1, len(states), clean.shape, generator=generator)
    rank = process.rank(clean).clamp(min=0)  # type: ignore[attr-defined]
    draft = torch.where(wrong, states[(rank + other) % len(states)], clean)
    for model, name, sampler in ways(share):
        denoiser = models[model].denoiser()
        x = canvas.ids
        for step in sampler.trajectory(denoiser, canvas._replace(ids=draft), generator, draft=draft):
            x = step.x
        x = draft if x is canvas.ids else x
        right = ((x == clean) | ~canvas.editable).all(1).double().mean().item()
        restored = (x == clean)[wrong].double().mean().item()
        broken = (x != clean)[canvas.editable & ~wrong].double().mean().item()
        found.append([share, seed, model, name, f"{right:.4f}", f"{restored:.4f}", f"{broken:.4f}", denoiser.calls])
        print(*found[-1], sep="\t", flush=True)
    return found


def texts(model: Loaded, conversations: list) -> tuple[Canvas, torch.Tensor]:  # type: ignore[type-arg]
    """Questions with their right answers, of six slots that end with the end of the answer."""
    documents, answers = [], []
    for messages in conversations:
        prompt = model.template.prompt(messages[:-1], 6)
        written = model.template.plain.encode([messages[-1]["content"]])[0][:6]
        documents.append(prompt)
        answers.append([*written, *[model.template.end_id] * (6 - len(written))])
    canvas = Canvas.left_padded(documents, model.tokenizer.pad_token_id)
    clean = canvas.ids.masked_scatter(canvas.editable, torch.tensor(answers))
    return canvas, clean


if __name__ == "__main__":
    main()
