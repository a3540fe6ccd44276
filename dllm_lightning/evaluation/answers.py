"""What a model answers: how often it is right, and what an answer costs."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from dllm_lightning.data.asked import Question
from dllm_lightning.evaluation.exercises import Exercise
from dllm_lightning.evaluation.findings import Finding, Section
from dllm_lightning.evaluation.shares import share
from dllm_lightning.evaluation.subject import Subject, Track, untracked
from dllm_lightning.terminal.output import caption as described
from dllm_lightning.terminal.output import named


class Answered(NamedTuple):
    """A question and what came back; `ids` are its tokens up to the end of the answer."""

    exercise: Exercise
    text: str
    ids: list[int]
    right: bool | None


class Cost(NamedTuple):
    """What an answer takes: rows of text that the network has read for it, and seconds, on average over `answers`.

    The rows do not depend on how many were answered at a time; the seconds do. `error` is that of the seconds, over
    batches.
    """

    answers: int
    calls: float
    seconds: float
    error: float


def answer(subject: Subject, exercises: Sequence[Exercise], track: Track = untracked) -> tuple[list[Answered], Cost]:
    """Has the questions answered, batch by batch. One step comes before, uncounted, and wakes everything up."""
    size, speaker = subject.batch_size, subject.speaker()
    batches = [exercises[i : i + size] for i in range(0, len(exercises), size)]
    found: list[Answered] = []
    seconds: list[float] = []
    with subject.arithmetic():
        _wake(subject, batches[0])
        with subject.counting() as rows:
            for batch in track(batches, "answers", len(batches)):
                answers = speaker.answers([Question(each.messages) for each in batch])
                seconds.append(answers[0].seconds)
                for each, said in zip(batch, answers, strict=True):
                    right = None if each.judge is None else each.judge(said.text)
                    found.append(Answered(each, said.text, said.ids[: said.tokens], right))
    each_took = [took / len(batch) for took, batch in zip(seconds, batches, strict=True)]
    error = statistics.stdev(each_took) / math.sqrt(len(batches)) if len(batches) > 1 else math.nan
    return found, Cost(len(found), sum(rows) / len(found), math.fsum(seconds) / len(found), error)


def _wake(subject: Subject, batch: Sequence[Exercise]) -> None:
    """The first call of a network takes longer than any other."""
    speaker = subject.speaker()
    canvas = speaker.canvas([Question(each.messages) for each in batch])
    next(iter(subject.sampler.trajectory(subject.denoiser, canvas, speaker.generator)), None)


def outcome(subject: Subject, answered: Sequence[Answered], cost: Cost) -> Section:
    """How many are right, of all and of each kind, and what an answer costs."""
    findings: list[Finding] = []
    if judged := [each for each in answered if each.right is not None]:
        findings.append(_right("exact_match", "exact match", judged))
        kinds = sorted({each.exercise.kind for each in judged if each.exercise.kind is not None})
        for kind in kinds if len(kinds) > 1 else ():
            among = [each for each in judged if each.exercise.kind == kind]
            findings.append(_right(f"exact_match/{kind}", f"  {kind}", among))
    tokens = sum(len(each.ids) for each in answered)
    pace = tokens / (cost.seconds * cost.answers) if cost.seconds > 0 else math.nan
    findings += [
        Finding("network_calls", "network calls", cost.calls, note="per answer"),
        Finding("seconds_per_answer", "seconds", cost.seconds, cost.error, note="per answer"),
        Finding("tokens_per_second", "tokens/s", pace),
    ]
    told = {
        "questions": len(answered),
        "length": subject.length,
        "batch_size": subject.batch_size,
        "sampler": named(subject.sampler),
        "precision": subject.precision,
        "seed": subject.seed,
        "device": str(subject.device),
    }
    together = min(subject.batch_size, len(answered))
    caption = (
        f"{len(answered)} questions, {subject.length} slots each, by {described(subject.sampler)}, "
        f"{together} at a time on {subject.device}, {subject.precision}, seed {subject.seed}"
    )
    return Section("answers", caption, findings, told)


def _right(name: str, called: str, judged: Sequence[Answered]) -> Finding:
    found = share(sum(bool(each.right) for each in judged), len(judged))
    note = f"{found.low:.1%} to {found.high:.1%} (95 %, Wilson), of {len(judged)}"
    return Finding(name, called, found.value, found.error, note=note)


def as_lines(answered: Sequence[Answered]) -> str:
    """The answers as JSON lines, for whoever wants to read them."""
    rows = (
        {
            "messages": [dict(message) for message in each.exercise.messages],
            "answer": each.text,
            "reference": each.exercise.reference,
            "right": each.right,
            "kind": each.exercise.kind,
        }
        for each in answered
    )
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
