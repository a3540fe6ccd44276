r"""A text with gaps, as it is written: `The [[4]] of France is Paris` leaves room for four tokens.

`[[N]]` is a gap. Two brackets that are none are written `\[[`, and a backslash right before two brackets, whatever
they are, is written twice. A backslash anywhere else is a backslash, and so is every other sign what it is.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dllm_lightning.data.messages import is_unicode

_OPENS = re.compile(r"(\\*)\[\[")
_GAP = re.compile(r"\[\[([0-9]{1,9})\]\]")


class BadGap(ValueError):
    """A text that has no gap, or something that looks like one; its message is a clause of a sentence."""


class Gapped(NamedTuple):
    """The given pieces of a text, which may be empty, and the widths of the gaps between them: one fewer."""

    pieces: tuple[str, ...]
    gaps: tuple[int, ...]


def gapped(text: str) -> Gapped:
    """Finds the gaps. Raises BadGap where there is none, and for what is none."""
    if not text:
        raise BadGap("empty content")
    if not is_unicode(text):
        raise BadGap("content with half a surrogate pair")
    pieces, gaps, stop = [""], [], 0
    while (found := _OPENS.search(text, stop)) is not None:
        backslashes = len(found[1])
        pieces[-1] += text[stop : found.start()] + "\\" * (backslashes // 2)
        opens = found.start() + backslashes
        if backslashes % 2:
            pieces[-1] += "[["
            stop = found.end()
        elif (gap := _GAP.match(text, opens)) is not None:
            gaps.append(_width(gap))
            pieces.append("")
            stop = gap.end()
        elif text.startswith("[[[", opens):  # the gap, if it is one, begins a bracket later
            pieces[-1] += "["
            stop = opens + 1
        else:
            shown = _begins(text[opens:])
            raise BadGap(rf"{shown} is no gap (four tokens are [[4]], the brackets themselves \[[)")
    if not gaps:
        raise BadGap("it has no gap, such as [[4]] for four tokens")
    pieces[-1] += text[stop:]
    return Gapped(tuple(pieces), tuple(gaps))


def _width(gap: re.Match[str]) -> int:
    if (width := int(gap[1])) == 0:
        raise BadGap(f"{gap[0]} is a gap without a token")
    return width


def _begins(text: str) -> str:
    """What looks like a gap, or how it begins."""
    shown = text[: text.find("]]") + 2] if "]]" in text[:24] else text[:12]
    return shown if len(shown) == len(text) or shown.endswith("]]") else f"{shown} ..."
