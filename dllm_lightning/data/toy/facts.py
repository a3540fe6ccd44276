"""Tasks about the little world: its facts, what comes next, what does not belong, and naming things of a kind."""

from __future__ import annotations

from itertools import product
from random import Random

from dllm_lightning.data.toy import world
from dllm_lightning.data.toy.task import Fields, Task, listing, words

FACTS = {"country": world.CAPITAL, "animal": world.SOUND, "thing": world.COLOUR, "word": world.OPPOSITE}

_ONE = (
    "what is the capital of {country1}",
    "which city is the capital of {country1}",
    "what does the {animal1} say",
    "what sound does the {animal1} make",
    "what colour is {thing1}",
    "which colour has {thing1}",
    "what is the opposite of {word1}",
    "which word is the opposite of {word1}",
)
_TWO = (
    "what are the capitals of {country1} and {country2}",
    "what do the {animal1} and the {animal2} say",
    "what colours are {thing1} and {thing2}",
    "what are the opposites of {word1} and {word2}",
)
_OPENINGS = ("{}?", "Tell me, {}?", "Hello, {}?", "Do you know {}?", "Please tell me {}.")


def _place(asked: str) -> str:
    return asked[asked.index("{") :].partition("}")[0]


def _and(first: str, second: str) -> str:
    return f"{first}, and {second.replace('1}', '2}')}"


class Fact(Task):
    """Capitals, sounds, colours and opposites: one of them, two of a kind, or two of any kind."""

    wordings = (
        *(opening.format(asked) for opening, asked in product(_OPENINGS, (*_ONE, *_TWO))),
        *(f"{_and(first, second)}?" for first, second in product(_ONE, _ONE) if _place(first) != _place(second)),
    )

    def draw(self, random: Random, level: int) -> Fields:
        kind, other = random.sample(list(FACTS), 2)
        kinds = {1: [kind], 2: [kind, kind], 3: [kind, other]}[level]
        return {f"{kind}{place}": random.choice(list(FACTS[kind])) for place, kind in enumerate(kinds, 1)}

    def solve(self, fields: Fields, random: Random) -> str:
        in_order = sorted(fields, key=lambda name: name[-1])
        return listing([FACTS[name[:-1]].get(fields[name], "nothing") for name in in_order])


class After(Task):
    """Days, months and letters in their order, forwards and backwards; after the last comes the first."""

    wordings = (
        "What comes {side} {item}?",
        "What is right {side} {item}?",
        "Say what comes {side} {item}.",
        "Tell me what is {side} {item}.",
        "Do you know what comes {side} {item}?",
        "What comes {count} places {side} {item}?",
        "What is {count} places {side} {item}?",
        "Say what is {count} places {side} {item}.",
    )

    def draw(self, random: Random, level: int) -> Fields:
        orders = (world.DAYS, world.LETTERS[:10]) if level == 1 else (world.DAYS, world.MONTHS, world.LETTERS)
        item = random.choice(random.choice(orders))
        fields = {"side": random.choice(world.SIDES), "item": item}
        count = random.randint(*{1: (1, 1), 2: (2, 3), 3: (4, 6)}[level])
        return fields if count == 1 else fields | {"count": world.COUNTS[count - 1]}

    def solve(self, fields: Fields, random: Random) -> str:
        order = next((o for o in (world.DAYS, world.MONTHS, world.LETTERS) if fields["item"] in o), None)
        count = fields.get("count", "one")
        if order is None or count not in world.COUNTS or fields["side"] not in world.SIDES:
            return "nothing"
        places = world.COUNTS.index(count) + 1
        return order[(order.index(fields["item"]) + (places if fields["side"] == "after" else -places)) % len(order)]


class Odd(Task):
    """The one thing that is of another kind than the rest."""

    wordings = (
        "Which does not belong: {items}?",
        "Find the odd one: {items}.",
        "What is different: {items}?",
        "Which one is odd: {items}?",
    )

    def draw(self, random: Random, level: int) -> Fields:
        kind, other = random.sample(list(world.KINDS), 2)
        rest = random.sample(world.KINDS[kind], random.randint(*{1: (2, 2), 2: (3, 4), 3: (5, 7)}[level]))
        items = [*rest, random.choice(world.KINDS[other])]
        return {"items": " ".join(random.sample(items, len(items)))}

    def solve(self, fields: Fields, random: Random) -> str:
        kinds = {item: world.kind_of(item) for item in words(fields["items"])}
        return next((item for item, kind in kinds.items() if [*kinds.values()].count(kind) == 1), "nothing")


def _some(random: Random, members: list[str], count: int) -> list[str]:
    """Some of the members, in the order of the world."""
    return [members[place] for place in sorted(random.sample(range(len(members)), count))]


class Name(Task):
    """Different things of a kind, of two kinds, or without one that is named: many right answers.

    Any order is right; our own answers keep the order of the world, which makes "different" far easier to learn.
    """

    wordings = (
        "Name {count} different {kind}.",
        "Tell me {count} {kind}.",
        "Name {count} {kind}, but not {but}.",
        "Tell me {count} {kind} without {but}.",
        "Name {count} {kind} and {count} {other}.",
        "Tell me {count} {kind} and {count} {other}.",
    )

    def draw(self, random: Random, level: int) -> Fields:
        kind, other = random.sample(list(world.KINDS), 2)
        fields = {"kind": kind, "count": random.choice(world.COUNTS[level : level + 2])}
        shape = random.randrange(3)
        if shape == 0:
            return fields
        if shape == 1:
            return fields | {"but": random.choice(world.KINDS[kind])}
        return fields | {"count": world.COUNTS[level], "other": other}

    def solve(self, fields: Fields, random: Random) -> str:
        count = world.COUNTS.index(fields["count"]) + 1
        allowed = [word for word in world.KINDS[fields["kind"]] if word != fields.get("but")]
        others = list(world.KINDS[fields["other"]]) if "other" in fields else []
        return listing(_some(random, allowed, count) + _some(random, others, count if others else 0))

    def judge(self, fields: Fields, answer: list[str]) -> bool:
        kinds = [fields[key] for key in ("kind", "other") if key in fields]
        if fields["count"] not in world.COUNTS or len(set(answer)) < len(answer) or fields.get("but") in answer:
            return False
        wanted = sorted(kinds * (world.COUNTS.index(fields["count"]) + 1))
        return sorted(str(world.kind_of(word)) for word in answer) == wanted
