"""The fixed little world of the toy chat: what there is, what belongs together, and in which order things come.

Plain facts, nothing else. Every word is written as the toy tokenizer reads it, in lower case.
"""

from __future__ import annotations

CAPITAL = {
    "china": "beijing", "cuba": "havana", "egypt": "cairo", "france": "paris", "greece": "athens",
    "italy": "rome", "japan": "tokyo", "norway": "oslo", "peru": "lima", "spain": "madrid",
}  # fmt: skip

SOUND = {
    "bee": "buzz", "cat": "meow", "cow": "moo", "dog": "woof", "duck": "quack",
    "horse": "neigh", "lion": "roar", "owl": "hoot", "pig": "oink", "sheep": "baa",
}  # fmt: skip

COLOUR = {
    "blood": "red", "chocolate": "brown", "coal": "black", "grass": "green", "honey": "yellow",
    "milk": "white", "mud": "brown", "night": "black", "sky": "blue", "snow": "white",
}  # fmt: skip

_PAIRS = (("big", "small"), ("fast", "slow"), ("happy", "sad"), ("hot", "cold"), ("loud", "quiet"), ("old", "new"))
OPPOSITE = {word: other for pair in _PAIRS for word, other in (pair, pair[::-1])}

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
SIDES = ("after", "before")

FRUITS = ("apple", "banana", "cherry", "fig", "grape", "lemon", "peach", "pear", "plum")
COLOURS = ("black", "blue", "brown", "green", "grey", "pink", "red", "white", "yellow")
TOOLS = ("axe", "brush", "fork", "hammer", "knife", "needle", "pen", "saw", "spoon")

KINDS: dict[str, tuple[str, ...]] = {  # plural name -> its members; no word belongs to two kinds
    "animals": tuple(SOUND),
    "colours": COLOURS,
    "fruits": FRUITS,
    "tools": TOOLS,
}
COUNTS = ("one", "two", "three", "four", "five", "six")


def kind_of(word: str) -> str | None:
    """The kind a word belongs to, or None."""
    return next((kind for kind, members in KINDS.items() if word in members), None)


def vocabulary() -> set[str]:
    """Every word of the world."""
    facts = (CAPITAL, SOUND, COLOUR, OPPOSITE)
    lists = (DAYS, MONTHS, LETTERS, SIDES, COUNTS, tuple(KINDS), *KINDS.values())
    return {w for fact in facts for pair in fact.items() for w in pair} | {w for words in lists for w in words}
