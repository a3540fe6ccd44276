"""Tasks about numbers: plus, minus, the larger one, numbers between two others, numbers with a given sum."""

from __future__ import annotations

from random import Random

from dllm_lightning.data.toy.task import Fields, Task, listing, normal, numbers
from dllm_lightning.data.toy.world import COUNTS

TOPS = {1: 20, 2: 99, 3: 999}  # no number of a level is larger


class Add(Task):
    """a + b."""

    wordings = ("What is {a} plus {b}?", "What is {a} + {b}?", "Add {a} and {b}.", "How much is {a} + {b}?")

    def draw(self, random: Random, level: int) -> Fields:
        total = random.randint(0, TOPS[level])
        first = random.randint(0, total)
        return {"a": str(first), "b": str(total - first)}

    def solve(self, fields: Fields, random: Random) -> str:
        return str(int(fields["a"]) + int(fields["b"]))


class Subtract(Task):
    """a - b, never below zero."""

    wordings = ("What is {a} minus {b}?", "What is {a} - {b}?", "Take {b} from {a}.", "How much is {a} - {b}?")

    def draw(self, random: Random, level: int) -> Fields:
        first = random.randint(0, TOPS[level])
        return {"a": str(first), "b": str(random.randint(0, first))}

    def solve(self, fields: Fields, random: Random) -> str:
        return str(int(fields["a"]) - int(fields["b"]))

    def judge(self, fields: Fields, answer: list[str]) -> bool:
        return int(fields["a"]) >= int(fields["b"]) and super().judge(fields, answer)


class Larger(Task):
    """The larger of two numbers."""

    wordings = ("Which is larger, {a} or {b}?", "Which is more, {a} or {b}?", "Say the larger of {a} and {b}.")

    def draw(self, random: Random, level: int) -> Fields:
        first, second = random.sample(range(TOPS[level] + 1), 2)
        return {"a": str(first), "b": str(second)}

    def solve(self, fields: Fields, random: Random) -> str:
        return str(max(int(fields["a"]), int(fields["b"])))


class Between(Task):
    """Different numbers strictly between two others: many right answers."""

    wordings = (
        "Name {count} different numbers between {a} and {b}.",
        "Which {count} numbers are between {a} and {b}?",
        "Tell me {count} numbers from between {a} and {b}.",
    )

    def draw(self, random: Random, level: int) -> Fields:
        count = random.randint(2, level + 1)
        low = random.randint(0, TOPS[level] - count - 3)
        high = random.randint(low + count + 2, min(TOPS[level], low + count + 8))
        return {"count": COUNTS[count - 1], "a": str(low), "b": str(high)}

    def solve(self, fields: Fields, random: Random) -> str:
        inside = range(int(fields["a"]) + 1, int(fields["b"]))
        return listing([str(n) for n in random.sample(inside, COUNTS.index(fields["count"]) + 1)])

    def judge(self, fields: Fields, answer: list[str]) -> bool:
        said = set(numbers(answer))
        inside = all(int(fields["a"]) < number < int(fields["b"]) for number in said)
        return inside and fields["count"] in COUNTS and len(said) == len(answer) == COUNTS.index(fields["count"]) + 1


class SumTo(Task):
    """Numbers with a given sum: many right answers, and every word depends on the others."""

    wordings = (
        "Which {count} numbers sum to {c}?",
        "Name {count} numbers that sum to {c}.",
        "Name {count} numbers that add up to {c}.",
        "Which {count} numbers make {c}?",
        "Write {c} as a sum of {count} numbers.",
        "Give me {count} numbers with the sum {c}.",
        "Split {c} into {count} numbers.",
    )

    def draw(self, random: Random, level: int) -> Fields:
        return {"count": COUNTS[random.randint(2, level + 1) - 1], "c": str(random.randint(level + 1, TOPS[level]))}

    def solve(self, fields: Fields, random: Random) -> str:
        total, count = int(fields["c"]), COUNTS.index(fields["count"]) + 1
        cuts = sorted(random.randint(0, total) for _ in range(count - 1))
        return listing([str(high - low) for low, high in zip([0, *cuts], [*cuts, total], strict=True)])

    def problem(self, text: str, fields: Fields) -> str:
        return normal(text)

    def judge(self, fields: Fields, answer: list[str]) -> bool:
        said = numbers(answer)
        many = fields["count"] in COUNTS and len(said) == COUNTS.index(fields["count"]) + 1
        return many and sum(said) == int(fields["c"])
