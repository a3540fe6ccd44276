"""How to answer a question with nothing but torch and transformers: greedy, the surest token first, one a step.

It is `sampler=confidence` written out as a program that can be copied.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from dllm_lightning.loading import Loaded
from dllm_lightning.publish.clock import Clock
from dllm_lightning.publish.manner import Manner
from dllm_lightning.publish.tokenizer import TALK, Mend

OPENING = """\
A masked diffusion language model. It does not write from left to right: it starts from an answer of nothing but
{mask_word}, believes something about every slot at once, and writes down what it is surest of first."""

SAMPLING = """\
import torch
{loads}from transformers import AutoModelForMaskedLM, AutoTokenizer
{finds}
name = {name}
tokenizer, model = AutoTokenizer.from_pretrained(name), AutoModelForMaskedLM.from_pretrained(name).eval()
messages = [{{"role": "user", "content": {question}}}]
slots, mask, end = {slots}, {mask}, {end}  # room for the answer, and the ids of {mask_word} and {end_word}
{lines}
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]{mended}
ids = torch.tensor([prompt + [mask] * slots])
empty = torch.arange(len(prompt), len(prompt) + slots)
while len(empty):
    with torch.no_grad():
        logits = model({reads}).logits[0, empty]
    logits[:, mask] = -torch.inf{narrow}
    confidence, token = logits.log_softmax(-1).max(-1)
    surest = confidence.argmax()
    ids[0, empty[surest]] = token[surest]
    empty = empty[torch.arange(len(empty)) != surest]

answer = ids[0, len(prompt) :].tolist()
answer = answer[: answer.index(end)] if end in answer else answer
print(tokenizer.decode(answer, skip_special_tokens=True).strip())
"""


def sampling(loaded: Loaded, tokenizer: Any, mended: Mend, name: str, slots: int) -> str:
    """The program for a model that is loaded by `name`: it asks one question, with `slots` for the answer."""
    vocab, end, clock = loaded.process.vocab, loaded.template.end_id, Clock.of(loaded)
    most = loaded.process.plain.mask_ratio(torch.ones((), dtype=torch.float64)).item()
    narrow = f"\n    logits[:, {vocab.length} :] = -torch.inf  # no token is there"
    return SAMPLING.format(
        name=json.dumps(name),
        question=json.dumps(TALK[0]["content"]),
        slots=slots,
        mask=vocab.mask_id,
        end=end,
        mask_word=tokenizer.mask_token,
        end_word=tokenizer.convert_ids_to_tokens(end),
        mended=mending(mended),
        narrow=narrow if vocab.length < vocab.size else "",
        reads=clock.reads(f"min(len(empty) / slots, {most!r})"),
        **clock._asdict(),
    )


def mending(mended: Mend) -> str:
    """The line of a program that mends a prompt; nothing where nothing has to be done."""
    if mended == Mend(0, ()):
        return ""
    return f"\nprompt = prompt[: len(prompt) - {mended.drop}] + {[*mended.add]}  # as an answer began in training"


MASKED = Manner(OPENING, "fill-mask", "masked-diffusion", "a slot that is not written yet", sampling)
