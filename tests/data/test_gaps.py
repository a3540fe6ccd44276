r"""The syntax of a text with gaps: every text can be written in it, and what is no gap is told."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_lightning.data.gaps import BadGap, Gapped, gapped

texts = st.lists(st.sampled_from(["\\", "[", "]", "[[", "]]", "4", "[[4]]", "a", " ", "\n", "é", "{}"])).map("".join)


def written(text: Gapped) -> str:
    """As one has to write it: brackets escaped, and backslashes before brackets doubled."""
    found = ""
    for piece, gap in zip(text.pieces, (*text.gaps, None), strict=True):
        piece = re.sub(r"(\\*)\[\[", lambda run: f"{run[1]}{run[1]}\\[[", piece)
        if gap is not None:
            piece = re.sub(r"(\\*)(\[?)\Z", lambda run: run[1] + run[1] + run[2], piece)
        found += piece if gap is None else f"{piece}[[{gap}]]"
    return found


@given(st.lists(st.tuples(texts, st.integers(1, 30)), min_size=1), texts)
def test_any_text_can_be_written_between_any_gaps(begins: list[tuple[str, int]], last: str) -> None:
    text = Gapped((*(piece for piece, _ in begins), last), tuple(gap for _, gap in begins))
    assert gapped(written(text)) == text


@pytest.mark.parametrize(
    ("source", "pieces", "gaps"),
    [
        ("The [[4]] of France", ("The ", " of France"), (4,)),
        ("[[1]][[20]]", ("", "", ""), (1, 20)),
        (r"a \[[4]] is [[2]]", ("a [[4]] is ", ""), (2,)),
        (r"C:\\[[2]]\d ]] [4]", ("C:\\", "\\d ]] [4]"), (2,)),
        (r"[[[3]]]", ("[", "]"), (3,)),
        (r"\\\[[ [[1]]", ("\\[[ ", ""), (1,)),
        ("{a} = ${b} 'c' \"d\" [[1]]\n", ("{a} = ${b} 'c' \"d\" ", "\n"), (1,)),
    ],
)
def test_gaps_are_found(source: str, pieces: tuple[str, ...], gaps: tuple[int, ...]) -> None:
    assert gapped(source) == Gapped(pieces, gaps)


NO_GAP = r" is no gap (four tokens are [[4]], the brackets themselves \[[)"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", "empty content"),
        ("no gap", "it has no gap, such as [[4]] for four tokens"),
        (r"\[[4]]", "it has no gap, such as [[4]] for four tokens"),
        ("a [[0]]", "[[0]] is a gap without a token"),
        ("a [[x]] b", f"[[x]]{NO_GAP}"),
        ("a [[ 4 ]] b", f"[[ 4 ]]{NO_GAP}"),
        ("a [[-4]] b", f"[[-4]]{NO_GAP}"),
        ("a [[٤]] b", f"[[٤]]{NO_GAP}"),
        ("a [[4", f"[[4{NO_GAP}"),
        ("[[4]] [[", f"[[{NO_GAP}"),
        (f"[[{'9' * 5000}]]", f"[[9999999999 ...{NO_GAP}"),
        ("half \ud800 [[4]]", "content with half a surrogate pair"),
    ],
)
def test_what_is_no_gap_is_told(source: str, reason: str) -> None:
    with pytest.raises(BadGap, match=f"^{re.escape(reason)}$"):
        gapped(source)
