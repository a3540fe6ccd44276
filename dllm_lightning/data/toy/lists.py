"""Tasks about a list that stands in the question: say it again, backwards, in order, in another order; count in it."""

from __future__ import annotations

from random import Random

from dllm_lightning.data.toy.task import Fields, Task, numbers, words
from dllm_lightning.data.toy.world import COLOURS, FRUITS, LETTERS, SOUND

DIGITS = tuple("0123456789")
THINGS = (*FRUITS, *COLOURS, *SOUND)
POOLS = (DIGITS, LETTERS, THINGS)
LENGTHS = {1: (3, 4), 2: (5, 6), 3: (7, 8)}


def _items(random: Random, level: int) -> list[str]:
    """Different digits, letters or things."""
    return random.sample(random.choice(POOLS), random.randint(*LENGTHS[level]))


class Copy(Task):
    """Repeat a, 7, dog."""

    wordings = ("Repeat {items}.", "Say again: {items}.", "Copy this: {items}.", "Please say {items}.")

    def draw(self, random: Random, level: int) -> Fields:
        return {"items": ", ".join(_items(random, level))}

    def solve(self, fields: Fields, random: Random) -> str:
        return fields["items"]


class Reverse(Task):
    """The list from its end."""

    wordings = ("Reverse {items}.", "Say backwards: {items}.", "From end to start: {items}.", "Turn around {items}.")

    def draw(self, random: Random, level: int) -> Fields:
        return {"items": ", ".join(_items(random, level))}

    def solve(self, fields: Fields, random: Random) -> str:
        return ", ".join(words(fields["items"])[::-1])


class Sort(Task):
    """Numbers, the smallest first."""

    wordings = ("Sort {items}.", "Put in order: {items}.", "From small to large: {items}.", "Please sort {items}.")

    def draw(self, random: Random, level: int) -> Fields:
        top, (low, high) = {1: (10, (3, 4)), 2: (30, (4, 5)), 3: (100, (5, 6))}[level]
        return {"items": ", ".join(map(str, random.sample(range(top), random.randint(low, high))))}

    def solve(self, fields: Fields, random: Random) -> str:
        return ", ".join(map(str, sorted(numbers(words(fields["items"])))))


class Shuffle(Task):
    """The same items in any other order: many right answers, each item exactly once."""

    wordings = ("Shuffle {items}.", "Mix up {items}.", "In another order: {items}.", "In any new order: {items}.")

    def draw(self, random: Random, level: int) -> Fields:
        return {"items": ", ".join(_items(random, level))}

    def solve(self, fields: Fields, random: Random) -> str:
        items = words(fields["items"])
        while (mixed := random.sample(items, len(items))) == items:
            pass
        return ", ".join(mixed)

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
        items = [random.choice(few) for _ in range(random.randint(*{1: (4, 5), 2: (6, 8), 3: (9, 12)}[level]))]
        return {"item": few[0], "items": ", ".join(items)}

    def solve(self, fields: Fields, random: Random) -> str:
        return str(words(fields["items"]).count(fields["item"]))
