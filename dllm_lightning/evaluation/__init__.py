"""Evaluation of a trained model: likelihood, answers, choices, and what a judge says of its texts."""

from dllm_lightning.evaluation.answers import Answered, Cost, answer, as_lines, outcome
from dllm_lightning.evaluation.choices import BadChoices, Choice, read_choices, scored
from dllm_lightning.evaluation.documents import bound_of
from dllm_lightning.evaluation.exercises import Exercise, NothingAsked, exercises
from dllm_lightning.evaluation.findings import Finding, Section, metrics
from dllm_lightning.evaluation.judge import Judge, NoJudge, load_judge
from dllm_lightning.evaluation.judged import judged
from dllm_lightning.evaluation.show import progress, show
from dllm_lightning.evaluation.sources import data_of
from dllm_lightning.evaluation.subject import Subject, estimator_of
from dllm_lightning.evaluation.variety import variety

__all__ = [
    "Answered",
    "BadChoices",
    "Choice",
    "Cost",
    "Exercise",
    "Finding",
    "Judge",
    "NoJudge",
    "NothingAsked",
    "Section",
    "Subject",
    "answer",
    "as_lines",
    "bound_of",
    "data_of",
    "estimator_of",
    "exercises",
    "judged",
    "load_judge",
    "metrics",
    "outcome",
    "progress",
    "read_choices",
    "scored",
    "show",
    "variety",
]
