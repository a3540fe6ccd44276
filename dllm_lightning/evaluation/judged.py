"""Generative perplexity of answers, never without what it must be read with: entropy, steps, precision and seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from dllm_lightning.evaluation.answers import Answered, Cost
from dllm_lightning.evaluation.exercises import NothingAsked
from dllm_lightning.evaluation.findings import Finding, Section
from dllm_lightning.evaluation.judge import Judge, Verdict
from dllm_lightning.evaluation.subject import Subject
from dllm_lightning.evaluation.texts import entropy, mean
from dllm_lightning.likelihood import per_token


def judged(subject: Subject, judge: Judge, answered: Sequence[Answered], cost: Cost) -> Section:
    """The judge's perplexity of the answers, each by itself, and of the answers in the data."""
    said = judge.verdict([each.text for each in answered], subject.batch_size)
    given = judge.verdict([each.exercise.reference for each in answered], subject.batch_size)
    if not said.tokens.sum():
        raise NothingAsked("Every answer is empty, so there is nothing to judge: leave judge out.")
    (value, error), (reference, _) = _perplexity(said), _perplexity(given)
    sure, _ = mean([entropy(each.ids) for each in answered])
    told = {
        "judge": judge.name,
        "judge_precision": "float32",
        "answers": int((said.tokens > 0).sum()),
        "tokens": int(said.tokens.sum()),
        "cut": said.cut,
        "entropy": sure,
        "network_calls": cost.calls,
        "precision": subject.precision,
        "seed": subject.seed,
    }
    note = f"at entropy {sure:.3g} nats, {cost.calls:.4g} network calls, {subject.precision}, seed {subject.seed}"
    cut = f", {said.cut} of them cut" if said.cut else ""
    caption = f"{told['answers']} answers{cut}, {told['tokens']} tokens of the judge {judge.name} (float32)"
    findings = [Finding("gen_ppl", "perplexity", value, error, reference, note)]
    return Section("generative perplexity", caption, findings, told)


def _perplexity(verdict: Verdict) -> tuple[float, float]:
    """exp(nats per token), over all texts that have any, with its error over texts."""
    some = verdict.tokens > 0
    if not some.any():
        return math.nan, math.nan
    nats, error, _ = per_token(_column(verdict.nats[some]), verdict.tokens[some])
    value = math.exp(nats) if nats < 700 else math.inf
    return value, value * error


def _column(values: Tensor) -> Tensor:
    """As one draw of each."""
    return values[:, None]
