"""Tasks about a list that stands in the question: say it again, backwards, in order, in another order; count in it."""

from __future__ import annotations

from random import Random

from dllm_lightning.data.toy.task import Fields, Task, numbers, words
from dllm_lightning.data.toy.world import KINDS, LETTERS

DIGITS = tuple("0123456789")
THINGS = tuple(word for kind in ("animals", "colours", "fruits") for word in KINDS[kind][:4])
LENGTHS = {1: (2, 3), 2: (4, 5), 3: (6, 8)}


def _items(random: Random, level: int, least: int = 2) -> list[str]:
    """Different digits or things, and letters in longer lists."""
    pools = (DIGITS, THINGS) if level == 1 else (DIGITS, THINGS, LETTERS)
    return random.sample(random.choice(pools), max(least, random.randint(*LENGTHS[level])))


class Copy(Task):
    """Repeat a, 7, dog."""

    wordings = ("Repeat {items}.", "Say again: {items}.", "Copy this: {items}.", "Please say {items}.")

    def draw(self, random: Random, level: int) -> Fields:
        return {"items": " ".join(_items(random, level))}

    def solve(self, fields: Fields, random: Random) -> str:
        return " ".join(words(fields["items"]))


class Reverse(Task):
    """The list from its end."""

    wordings = ("Reverse {items}.", "Say backwards: {items}.", "From end to start: {items}.", "Turn around {items}.")

    def draw(self, random: Random, level: int) -> Fields:
        return {"items": " ".join(_items(random, level))}

    def solve(self, fields: Fields, random: Random) -> str:
        return " ".join(words(fields["items"])[::-1])


class Sort(Task):
    """Numbers, the smallest first."""

    wordings = ("Sort {items}.", "Put in order: {items}.", "From small to large: {items}.", "Please sort {items}.")

    def draw(self, random: Random, level: int) -> Fields:
        top, (low, high) = {1: (10, (2, 4)), 2: (30, (3, 5)), 3: (100, (5, 6))}[level]
        return {"items": " ".join(map(str, random.sample(range(top), random.randint(low, high))))}

    def solve(self, fields: Fields, random: Random) -> str:
        return " ".join(map(str, sorted(numbers(words(fields["items"])))))


class Shuffle(Task):
    """The same items in any other order: many right answers, each item exactly once."""

    wordings = ("Shuffle {items}.", "Mix up {items}.", "In another order: {items}.", "In any new order: {items}.")

    def draw(self, random: Random, level: int) -> Fields:
        return {"items": " ".join(_items(random, level, least=3))}

    def solve(self, fields: Fields, random: Random) -> str:
        items = words(fields["items"])
        while (mixed := random.sample(items, len(items))) == items:
            pass
        return " ".join(mixed)

    def judge(self, fields: Fields, answer: list[str]) -> bool:
        items = words(fields["items"])
        return answer != items and sorted(answer) == sorted(items)


class Count(Task):
    """How often something stands in a list."""

    wordings = (
        "How many times is {item} in {items}?",
        "How often do you see {item} in {items}?",
        "Count {item} in {items}.",
        "How many are {item}: {items}?",
    )

    def draw(self, random: Random, level: int) -> Fields:
        few = random.sample(THINGS, level + 1)
        items = [random.choice(few) for _ in range(random.randint(*{1: (2, 4), 2: (5, 7), 3: (8, 10)}[level]))]
        return {"item": few[0], "items": " ".join(items)}

    def solve(self, fields: Fields, random: Random) -> str:
        return str(words(fields["items"]).count(fields["item"]))
