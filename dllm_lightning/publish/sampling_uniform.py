"""How to answer a question from random tokens, with nothing but torch and transformers: the posterior, step by step.

It is `sampler=ancestral sampler.greedy_tail=true` written out as a program that can be copied, along equal strides of
the share of random tokens. Posterior and network know time by that share alone, so no schedule has to be told.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from dllm_lightning.loading import Loaded
from dllm_lightning.publish.clock import Clock
from dllm_lightning.publish.manner import Manner
from dllm_lightning.publish.sampling import mending
from dllm_lightning.publish.tokenizer import TALK, Mend

OPENING = """\
A uniform-state diffusion language model (Duo). It does not write from left to right: it starts from an answer of
random tokens, believes something about every slot at once, from all the others, and replaces what it does not believe.
Every slot can be corrected until the last step. There is no mask: {mask_word} never stands in an answer."""

SAMPLING = """\
import torch
{loads}from transformers import AutoModelForMaskedLM, AutoTokenizer
{finds}
name = {name}
tokenizer, model = AutoTokenizer.from_pretrained(name), AutoModelForMaskedLM.from_pretrained(name).eval()
messages = [{{"role": "user", "content": {question}}}]
slots, end = {slots}, {end}  # room for the answer, and the id of {end_word}, which ends it
steps, noise = {steps}, {noise!r}  # network calls, and the share of random tokens in what the first of them reads
states = torch.tensor([{states}])  # what a slot can hold
torch.manual_seed(0)  # another seed, another answer
{lines}
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]{mended}
ids = states[torch.randint(len(states), (1, len(prompt) + slots))]
ids[0, : len(prompt)] = torch.tensor(prompt)
answer = ids[0, len(prompt) :]  # a view: what is written here, the network reads

pi = torch.zeros(model.config.vocab_size, dtype=torch.float64)
pi[states] = 1 / len(states)
share = torch.linspace(noise, 0, steps + 1, dtype=torch.float64)  # of random tokens in the answer, step by step
for t, s in zip(share[:-1], share[1:]):
    with torch.no_grad():
        logits = model({reads}).logits[0, len(prompt) :]
    p_x0 = (logits.double() + pi.log()).softmax(-1)  # of each clean token, judged by all the others
    if s == 0:  # the last step: what is most believed
        answer[:] = p_x0.argmax(-1)
        break
    survive = (1 - t) / (1 - s)
    marginal = (1 - s) * p_x0 + s * pi
    likelihood = torch.ones_like(p_x0) * (1 - survive) / len(states)  # of what stands there
    likelihood[torch.arange(slots), answer] += survive
    posterior = likelihood * marginal  # up to a factor
    answer[:] = (posterior / torch.empty_like(posterior).exponential_()).argmax(-1)  # a draw, as a race

answer = answer.tolist()
answer = answer[: answer.index(end)] if end in answer else answer
print(tokenizer.decode(answer, skip_special_tokens=True).strip())
"""

STEPS = 64
"""Network calls of the program."""


def sampling(loaded: Loaded, tokenizer: Any, mended: Mend, name: str, slots: int) -> str:
    """The program for a model that is loaded by `name`: it asks one question, with `slots` for the answer."""
    process: Any = loaded.process.plain
    clock = Clock.of(loaded)
    return SAMPLING.format(
        name=json.dumps(name),
        question=json.dumps(TALK[0]["content"]),
        slots=slots,
        steps=STEPS,
        noise=process.mask_ratio(torch.ones((), dtype=torch.float64)).item(),
        end=loaded.template.end_id,
        end_word=tokenizer.convert_ids_to_tokens(loaded.template.end_id),
        states=ranges(process.states.tolist()),
        mended=mending(mended),
        reads=clock.reads("t"),
        **clock._asdict(),
    )


def ranges(ids: list[int]) -> str:
    """Ascending ids as the inside of a list, where neighbours are written together: *range(3, 7), 9."""
    runs: list[list[int]] = []
    for i in ids:
        if runs and i == runs[-1][-1] + 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    return ", ".join(f"*range({run[0]}, {run[-1] + 1})" if len(run) > 1 else str(run[0]) for run in runs)


UNIFORM = Manner(OPENING, "text-generation", "uniform-diffusion", None, sampling)
