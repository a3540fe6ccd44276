"""Tasks about numbers: plus, minus, the larger one, numbers between two others, numbers with a given sum."""

from __future__ import annotations

from random import Random

from dllm_lightning.data.toy.task import Fields, Task, listing, numbers
from dllm_lightning.data.toy.world import COUNTS

TOPS = {1: 20, 2: 99, 3: 999}  # no number of a level is larger
PARTS = {1: 9, 2: 49, 3: 499}  # what is added or taken away


class Add(Task):
    """a + b."""

    wordings = (
        "What is {a} plus {b}?",
        "What is {a} + {b}?",
        "Add {a} and {b}.",
        "How much is {a} + {b}?",
        "Please add {a} and {b}.",
        "Tell me {a} + {b}.",
    )

    def draw(self, random: Random, level: int) -> Fields:
        return {name: str(random.randint(0, PARTS[level])) for name in "ab"}

    def solve(self, fields: Fields, random: Random) -> str:
        return str(int(fields["a"]) + int(fields["b"]))


class Subtract(Task):
    """a - b, never below zero."""

    wordings = (
        "What is {a} minus {b}?",
        "What is {a} - {b}?",
        "How much is {a} minus {b}?",
        "How much is {a} - {b}?",
        "Please take {b} from {a}.",
        "Tell me {a} - {b}.",
    )

    def draw(self, random: Random, level: int) -> Fields:
        taken, left = random.randint(0, PARTS[level]), random.randint(0, PARTS[level])
        return {"a": str(taken + left), "b": str(taken)}

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
    """Different numbers strictly between two others, in any order: many right answers. Ours rise."""

    wordings = (
        "Name {count} different numbers between {a} and {b}.",
        "Which {count} numbers are between {a} and {b}?",
        "Tell me {count} numbers from between {a} and {b}.",
        "Find {count} numbers between {a} and {b}.",
        "Please name {count} numbers between {a} and {b}.",
    )

    def draw(self, random: Random, level: int) -> Fields:
        count, top = random.randint(2, level + 1), 9 if level == 1 else TOPS[level]
        low = random.randint(0, top - count - 3)
        high = random.randint(low + count + 2, min(top, low + count + 8))
        return {"count": COUNTS[count - 1], "a": str(low), "b": str(high)}

    def solve(self, fields: Fields, random: Random) -> str:
        inside = range(int(fields["a"]) + 1, int(fields["b"]))
        return listing([str(n) for n in sorted(random.sample(inside, COUNTS.index(fields["count"]) + 1))])

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
        count = random.randint(2, level + 1)
        return {"count": COUNTS[count - 1], "c": str(random.randint(2, count * PARTS[level]))}

    def solve(self, fields: Fields, random: Random) -> str:
        left, parts, largest = int(fields["c"]), [], 9
        count = COUNTS.index(fields["count"]) + 1
        while count * largest < left:  # parts have no more digits than they need, so answers stay short
            largest = 10 * largest + 9
        for others in reversed(range(count)):
            parts.append(random.randint(max(0, left - others * largest), min(left, largest)))
            left -= parts[-1]
        return listing([str(part) for part in parts])

    def judge(self, fields: Fields, answer: list[str]) -> bool:
        said = numbers(answer)
        many = fields["count"] in COUNTS and len(said) == COUNTS.index(fields["count"]) + 1
        return many and sum(said) == int(fields["c"])
