"""How varied the answers of a model are, and how varied those that were written for the same questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dllm_lightning.data.template import ChatTemplate
from dllm_lightning.evaluation.answers import Answered
from dllm_lightning.evaluation.findings import Finding, Section
from dllm_lightning.evaluation.texts import Tokens, distinct, entropy, mean, repeated


def variety(answered: Sequence[Answered], template: ChatTemplate) -> Section:
    """Length, entropy, repetition and distinct n-grams, in the tokens of the model."""
    said = [each.ids for each in answered]
    given = [each.exercise.reference_ids(template) for each in answered]

    def average(name: str, of: Callable[[Tokens], float], note: str) -> Finding:
        (value, error), (reference, _) = mean([*map(of, said)]), mean([*map(of, given)])
        return Finding(name, name, value, error, reference, note)

    findings = [average("tokens", len, "in an answer"), average("entropy", entropy, "nats, of the tokens in an answer")]
    for n in (2, 3, 4):
        values = repeated(said, n), repeated(given, n)
        note = "that stood in the same answer before" if n == 2 else ""
        findings.append(Finding(f"repeated_{n}", f"repeated {n}-grams", values[0], reference=values[1], note=note))
    for n in (1, 2, 3):
        values = distinct(said, n), distinct(given, n)
        note = "different n-grams of all answers, per n-gram" if n == 1 else ""
        findings.append(Finding(f"distinct_{n}", f"distinct-{n}", values[0], reference=values[1], note=note))
    return Section("text", "of the answers | of those in the data", findings, {"answers": len(answered)})
