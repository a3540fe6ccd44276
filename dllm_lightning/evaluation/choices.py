"""Multiple choice by likelihood: which of the given answers the model finds the most probable."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dllm_lightning.data import Document, Encoder
from dllm_lightning.data.messages import Message, validate_prompt
from dllm_lightning.evaluation.findings import Finding, Section
from dllm_lightning.evaluation.given import TooLong, bounds, encoder_of, with_answer
from dllm_lightning.evaluation.shares import share
from dllm_lightning.evaluation.subject import Subject, Track, untracked
from dllm_lightning.likelihood import ByCount, Estimator, noise


class BadChoices(ValueError):
    """A question with choices that cannot be used."""


class Choice(NamedTuple):
    """A question, the answers to choose from, and the number of the right one. `where` is how a person finds it."""

    messages: Sequence[Message]
    choices: Sequence[str]
    answer: int
    where: str


def read_choices(name: str, limit: int | None = None) -> list[Choice]:
    """The questions in a .jsonl file: `prompt` or `messages`, `choices`, and `answer`, a number from 0 or a choice.

    Raises BadChoices, with the line, for what is none, and for a file without any.
    """
    file = Path(name).expanduser()
    if not file.is_file():
        raise BadChoices(f"There is no file choices={name!r}: give a .jsonl file with prompt, choices and answer.")
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise BadChoices(f"choices={name} is not UTF-8 text ({error.reason} at byte {error.start}).") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    found = [_choice(line, f"choices={name} line {number}") for number, line in numbered[:limit]]
    if not found:
        raise BadChoices(f"choices={name} asks nothing: it has no line with a question.")
    return found


def _choice(line: str, where: str) -> Choice:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadChoices(f"{where} is not JSON ({error.msg}).") from error
    if not isinstance(row, dict) or not ("prompt" in row or "messages" in row):
        raise BadChoices(f'{where} asks nothing: it has neither a "prompt" nor "messages".')
    messages = row["messages"] if "messages" in row else [{"role": "user", "content": row["prompt"]}]
    if (reason := validate_prompt(messages)) is not None:
        raise BadChoices(f"{where} cannot be answered: {reason}.")
    choices, answer = row.get("choices"), row.get("answer")
    if (
        not isinstance(choices, list)
        or not all(isinstance(each, str) and each.strip() for each in choices)
        or not 2 <= len(choices) == len({*choices})
    ):
        raise BadChoices(f"{where} has choices={choices!r}: give a list of at least two different texts.")
    if isinstance(answer, str) and answer in choices:
        answer = choices.index(answer)
    if type(answer) is not int or not 0 <= answer < len(choices):
        raise BadChoices(f"{where} has answer={answer!r}: give one of its choices, or its number, from 0.")
    return Choice(messages, choices, answer, where)


def scored(
    subject: Subject,
    questions: Sequence[Choice],
    by: Estimator,
    draws: int,
    track: Track = untracked,
) -> Section:
    """Accuracy by the log-likelihood of a whole answer, and by that per token.

    The choices of a question see the same noise, slot by slot. A question is close when the two best choices are
    within two standard errors of that noise.
    """
    encoder = encoder_of(subject)
    pairs = [(number, choice) for number, each in enumerate(questions) for choice in each.choices]
    rows = [_document(encoder, questions[number], choice) for number, choice in pairs]
    drawn = bounds(subject, rows, [number for number, _ in pairs], by, draws, track)
    tokens = torch.tensor([_own_tokens(row, encoder.template.end_id) for row in rows])
    ends = torch.tensor([0, *(len(each.choices) for each in questions)]).cumsum(0).tolist()
    spans = [slice(*pair) for pair in pairwise(ends)]
    answers = [each.answer for each in questions]
    whole = [int(drawn[span].mean(1).argmin()) for span in spans]
    each_token = [int((drawn[span].mean(1) / tokens[span]).argmin()) for span in spans]
    return Section(
        "choices",
        f"{len(questions)} questions, {draws} draws by {'count' if isinstance(by, ByCount) else 'time'}, "
        f"{subject.precision}, seed {subject.seed}",
        [
            _accuracy("choice_accuracy", "accuracy", whole, answers, "by log-likelihood"),
            _accuracy("choice_accuracy_per_token", "accuracy", each_token, answers, "by log-likelihood per token"),
            Finding("choice_chance", "chance", sum(1 / len(each.choices) for each in questions) / len(questions)),
            Finding(
                "choice_close",
                "close",
                sum(_close(drawn[span]) for span in spans) / len(spans),
                note="questions where more draws could change the choice",
            ),
        ],
        {
            "questions": len(questions),
            "draws": draws,
            "estimator": "count" if isinstance(by, ByCount) else "time",
            "precision": subject.precision,
            "seed": subject.seed,
        },
    )


def _document(encoder: Encoder, question: Choice, choice: str) -> Document:
    try:
        return with_answer(encoder, question.messages, choice)
    except TooLong as error:
        raise BadChoices(f"{question.where} is too long with {choice[:40]!r}: {error}.") from error


def _own_tokens(document: Document, end_id: int) -> int:
    """Tokens of the answer up to the first one that ends it; ends that fill it up do not count."""
    answer = document.ids[document.editable.index(True) :]
    return answer.index(end_id) + 1 if end_id in answer else len(answer)


def _accuracy(name: str, called: str, chosen: list[int], answers: list[int], how: str) -> Finding:
    found = share(sum(a == b for a, b in zip(chosen, answers, strict=True)), len(answers))
    return Finding(
        name, called, found.value, found.error, note=f"{how}; {found.low:.1%} to {found.high:.1%} (95 %, Wilson)"
    )


def _close(drawn: Tensor) -> bool:
    """Whether the two most probable choices are within two standard errors of the difference, over the draws."""
    first, second = drawn.mean(1).argsort()[:2].tolist()
    difference = (drawn[second] - drawn[first])[None]
    return bool(difference.mean() <= 2 * noise(difference))  # as for two that are equal
