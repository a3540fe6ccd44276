"""What the numbers of texts are, on texts whose numbers can be worked out by hand."""

from __future__ import annotations

import math

import pytest

from dllm_lightning.evaluation.texts import distinct, entropy, mean, repeated


def test_repetition_is_what_stood_in_the_same_text_before() -> None:
    assert repeated([[1, 2, 1, 2, 1]], 2) == pytest.approx(1 - 2 / 4)  # 12 21 12 21
    assert repeated([[1, 2], [1, 2]], 2) == 0.0  # in another text, that is no repetition
    assert repeated([[1, 1, 1], [2, 3, 4]], 1) == pytest.approx(1 - 4 / 6)


def test_distinct_n_grams_are_counted_over_all_texts() -> None:
    assert distinct([[1, 2], [1, 2]], 2) == 0.5 and distinct([[1, 2], [1, 3]], 1) == 0.75


def test_entropy_is_that_of_the_frequencies_in_a_text() -> None:
    assert entropy([7, 7, 7]) == 0.0
    assert entropy([1, 2, 3, 4]) == pytest.approx(math.log(4))
    assert entropy([1, 1, 2]) == pytest.approx(-2 / 3 * math.log(2 / 3) - 1 / 3 * math.log(1 / 3))


def test_texts_that_are_too_short_say_nothing() -> None:
    assert math.isnan(entropy([])) and math.isnan(repeated([[1], []], 2)) and math.isnan(distinct([], 1))
    assert mean([math.nan, 1.0, 3.0]) == (2.0, 1.0) and all(map(math.isnan, mean([])))
    assert math.isnan(mean([1.0])[1])
