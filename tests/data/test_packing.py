"""Packing keeps every document, wastes next to nothing, and lays documents side by side."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dllm_lightning.data.packing import Layout, Tokens, pack


def lengths(count: int, capacity: int) -> np.ndarray:
    """Many short documents and some long ones, as in a chat."""
    drawn = np.random.default_rng(0).lognormal(np.log(capacity / 6), 0.9, count)
    return np.clip(drawn.astype(int), 1, capacity)


@pytest.mark.parametrize("capacity", [1, 7, 64, 512])
@pytest.mark.parametrize("count", [0, 1, 100, 3000])
def test_every_document_stands_in_one_row_and_no_row_overflows(count: int, capacity: int) -> None:
    sizes = lengths(count, capacity)
    rows = pack(sizes, capacity)
    assert sorted(document for row in rows for document in row) == list(range(count))
    assert all(0 < sizes[row].sum() <= capacity for row in rows)


def test_a_chat_mixture_fills_its_rows() -> None:
    sizes = lengths(20_000, 512)
    assert sizes.sum() / (512 * len(pack(sizes, 512))) > 0.99


def test_pairs_that_fill_a_row_find_each_other() -> None:
    sizes = np.random.default_rng(0).permutation([*range(51, 100), *range(1, 50), 50, 50])
    assert {sizes[row].sum() for row in pack(sizes, 100)} == {100}


def test_a_document_goes_into_the_fullest_row_with_room() -> None:
    assert pack([6, 7, 2, 3], 10) == [[1, 3], [0, 2]]


def test_the_shape_of_the_rows_depends_on_the_lengths_alone() -> None:
    sizes = lengths(500, 64)
    mixed = np.random.default_rng(1).permutation(sizes)
    assert [sizes[row].tolist() for row in pack(sizes, 64)] == [mixed[row].tolist() for row in pack(mixed, 64)]


def test_a_document_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="9 slots does not fit into a row of 8"):
        pack([3, 9], 8)


def document(*ids: int, answer: int) -> Tokens:
    """Ids, of which the last `answer` are the answer."""
    return Tokens(np.array(ids, np.int32), np.arange(len(ids)) >= len(ids) - answer)


def test_documents_stand_side_by_side_and_padding_fills_the_rest() -> None:
    first, second, third = document(5, 6, 7, answer=1), document(8, 9, answer=1), document(3, 4, answer=2)
    canvas = Layout(pad_id=0, width=6)([[first, second], [third]])
    assert_close(canvas.ids, torch.tensor([[5, 6, 7, 8, 9, 0], [3, 4, 0, 0, 0, 0]]))
    assert_close(canvas.segment, torch.tensor([[1, 1, 1, 2, 2, 0], [1, 1, 0, 0, 0, 0]]))
    assert_close(canvas.editable, torch.tensor([[0, 0, 1, 0, 1, 0], [1, 1, 0, 0, 0, 0]]).bool())
    assert_close(canvas.position(), torch.tensor([[0, 1, 2, 0, 1, 0], [0, 1, 0, 1, 2, 3]]))


def test_without_a_width_rows_are_as_long_as_the_longest() -> None:
    canvas = Layout(pad_id=9)([[document(5, 6, 7, answer=1)], [document(8, answer=1)], []])
    assert_close(canvas.ids, torch.tensor([[5, 6, 7], [8, 9, 9], [9, 9, 9]]))
    assert_close(canvas.segment, torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]]))
    assert not canvas.editable[canvas.segment == 0].any()


def test_an_empty_row_is_one_slot_of_padding() -> None:
    canvas = Layout(pad_id=9)([[]])
    assert (canvas.ids.tolist(), canvas.editable.tolist(), canvas.segment.tolist()) == ([[9]], [[False]], [[0]])
