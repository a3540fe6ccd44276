"""A store of keys and values: a column that is computed among stored ones is the column of the whole row, as long as
the text is the same; and what each cache computes anew."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import AttentionInterface, AttentionMaskInterface

from dllm_lightning.backbone import CannotRemember, ModernBert
from dllm_lightning.backbone.cache import Cache, Delayed, Dual, Prefix, Store, Vicinity, View, nothing
from dllm_lightning.types import positions
from tests.backbone.nets import BERT, documents, masked_lm, modernbert, rows

LENGTHS = (24, 17, 30)  # a window reaches 4 slots to either side
LAYOUTS = {
    "alone": rows([[d] for d in documents((30, 30))], 30),
    "padded on the left": rows([[d] for d in documents((24, 24))], 30, left=6),
    "padded on the right": rows([[d] for d in documents(LENGTHS)], 33),
    "packed between padding": rows([documents((9, 14)), documents((20, 2, 5))], 34, left=3),
}
COLUMNS = {
    "one column": [17],
    "neighbours": [*range(12, 20)],
    "the end of the row": [*range(21, 30)],
    "columns with gaps": [4, 5, 11, 18, 19, 29],
    "all columns": [*range(30)],
}
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def backbone(request: pytest.FixtureRequest) -> ModernBert:
    return modernbert(attention=request.param, time_conditioning=True).eval()


def states(backbone: ModernBert, ids: Tensor, segment: Tensor, store: Store | None = None) -> Tensor:
    level = torch.linspace(0.1, 0.9, len(ids))[:, None].expand(ids.shape)
    with torch.no_grad():
        if store is None:
            return backbone.encode(ids, level, segment)
        return backbone.encode_anew(ids, level, segment, store)


def view(columns: list[int], segment: Tensor, own: Tensor | None = None) -> View:
    return View(torch.tensor(columns), own, bool((segment == 1).all()))


def filled(backbone: ModernBert, ids: Tensor, segment: Tensor) -> Store:
    """A store that knows a text."""
    store = backbone.store()
    assert_close(states(backbone, ids, segment, store), states(backbone, ids, segment), rtol=0, atol=0)
    return store


def other(ids: Tensor, columns: list[int]) -> Tensor:
    """The same text with other tokens in these columns."""
    changed = ids.clone()
    changed[:, columns] = 3 + (ids[:, columns] + 7) % 50
    return changed


@every_layout
@pytest.mark.parametrize("columns", COLUMNS.values(), ids=COLUMNS)
def test_columns_of_an_unchanged_text_are_what_they_are_in_the_whole_row(
    backbone: ModernBert, layout: tuple[Tensor, Tensor], columns: list[int]
) -> None:
    whole, store = states(backbone, *layout), filled(backbone, *layout)
    for _ in range(2):  # and the store is none the worse for it
        store.look(view(columns, layout[1]))
        assert_close(states(backbone, *layout, store), whole[:, columns], rtol=0, atol=1e-5)


@every_layout
def test_where_every_column_is_computed_nothing_is_stale(backbone: ModernBert, layout: tuple[Tensor, Tensor]) -> None:
    ids, segment = layout
    store = filled(backbone, ids, segment)
    store.look(view([*range(ids.shape[1])], segment))
    changed = other(ids, [8, 20])
    assert_close(states(backbone, changed, segment, store), states(backbone, changed, segment), rtol=0, atol=1e-5)


def test_what_was_computed_takes_its_place_in_the_store(backbone: ModernBert) -> None:
    """The first layer sees keys and values of the tokens alone, so there is no staleness in it."""
    ids, segment = LAYOUTS["alone"]
    columns, changed = [10, 11, 14], other(ids, [10, 11, 14])
    store, fresh = filled(backbone, ids, segment), filled(backbone, changed, segment)
    assert not torch.allclose(store.keys[0], fresh.keys[0], atol=1e-3)
    store.look(view(columns, segment))
    states(backbone, changed, segment, store)
    assert_close((store.keys[0], store.values[0]), (fresh.keys[0], fresh.values[0]), rtol=0, atol=1e-6)
    assert not torch.allclose(store.keys[1], fresh.keys[1], atol=1e-5)  # the neighbours have not noticed


@every_layout
@pytest.mark.parametrize("columns", [COLUMNS["one column"], COLUMNS["neighbours"], COLUMNS["columns with gaps"]])
def test_computed_columns_see_in_every_layer_what_the_others_were(
    backbone: ModernBert, layout: tuple[Tensor, Tensor], columns: list[int]
) -> None:
    """By hand: each layer reads the states of the old text, with those of the new one in the computed columns."""
    ids, segment = layout
    changed, model = other(ids, columns), backbone.network.model
    store = filled(backbone, ids, segment)
    store.look(view(columns, segment))
    found = states(backbone, changed, segment, store)
    masks, places = backbone._masks(segment), positions(segment)
    with torch.no_grad():
        old, new = (backbone.read(x, torch.full(x.shape, 0.5))["inputs_embeds"] for x in (ids, changed))
        old, new = model.embeddings(inputs_embeds=old), model.embeddings(inputs_embeds=new)[:, columns]
        for layer in model.layers:
            rest = {
                "attention_mask": masks[layer.attention_type],
                "position_embeddings": model.rotary_emb(old, places, layer.attention_type),
            }
            mixed = old.index_copy(1, torch.tensor(columns), new)
            new, old = layer(mixed, **rest)[:, columns], layer(old, **rest)
        assert_close(found, model.final_norm(new), rtol=0, atol=1e-5)
        assert (found - states(backbone, changed, segment)[:, columns]).abs().max() > 1e-4  # they are stale, that is


def test_a_row_takes_as_new_only_its_own_columns(backbone: ModernBert) -> None:
    ids, segment = LAYOUTS["alone"]
    columns, changed = [6, 7, 21], other(ids, [6, 7, 21])
    own = torch.tensor([[True, True, False], [False, True, True]])
    together = filled(backbone, ids, segment)
    together.look(view(columns, segment, own))
    found = states(backbone, changed, segment, together)
    for row, mine in enumerate(([6, 7], [7, 21])):
        here = slice(row, row + 1)
        alone = filled(backbone, ids[here], segment[here])
        alone.look(view(mine, segment[here]))
        level = torch.linspace(0.1, 0.9, 2)[here, None].expand(1, 30)
        with torch.no_grad():
            expected = backbone.encode_anew(changed[here], level, segment[here], alone)
        assert_close(found[here][:, own[row]], expected, rtol=0, atol=1e-5)
        for layer in alone.keys:
            assert_close(together.keys[layer][here], alone.keys[layer], rtol=0, atol=1e-5)
            assert_close(together.values[layer][here], alone.values[layer], rtol=0, atol=1e-5)


def test_rows_that_stay_are_what_they_were(backbone: ModernBert) -> None:
    ids, segment = LAYOUTS["padded on the right"]
    whole, store = states(backbone, ids, segment), filled(backbone, ids, segment)
    store.keep(torch.tensor([0, 2]))
    store.look(view([3, 4], segment[[0, 2]]))
    level = torch.linspace(0.1, 0.9, 3)[[0, 2], None].expand(2, ids.shape[1])
    with torch.no_grad():
        found = backbone.encode_anew(ids[[0, 2]], level, segment[[0, 2]], store)
    assert_close(found, whole[[0, 2]][:, [3, 4]], rtol=0, atol=1e-5)


def test_no_mask_is_larger_than_what_is_computed_and_windows_look_no_further_than_they_reach() -> None:
    backbone = modernbert().eval()
    ids, segment = LAYOUTS["padded on the left"]
    store = filled(backbone, ids, segment)
    store.look(view([12, 13, 15], segment))
    states(backbone, ids, segment, store)
    assert store.sight is not None
    shapes = {name: None if mask is None else tuple(mask.shape) for name, mask in store.sight.masks.items()}
    assert shapes == {"full_attention": (2, 1, 3, 30), "sliding_attention": (2, 1, 3, 12)}
    assert store.sight.keys["sliding_attention"] == slice(8, 20)


def test_a_store_keeps_no_more_than_keys_and_values() -> None:
    backbone = modernbert().eval()
    ids, segment = LAYOUTS["alone"]
    store = filled(backbone, ids, segment)
    for kept in (store.keys, store.values):
        assert [*kept] == [0, 1, 2, 3]
        assert all(tensor.untyped_storage().nbytes() == 2 * 30 * 32 * 4 for tensor in kept.values())


def test_calls_without_a_store_are_what_they_were_before(backbone: ModernBert) -> None:
    """Hugging Face's own masks too: a kernel whose masks go by no name would see padding, and through its windows."""
    plain = modernbert(attention=backbone.attention, time_conditioning=True).eval()
    backbone.store()
    for ids, segment in LAYOUTS.values():
        assert_close(states(backbone, ids, segment), states(plain, ids, segment), rtol=0, atol=0)
    ids, segment = LAYOUTS["padded on the right"]
    ours, theirs = (
        net.network(input_ids=ids, attention_mask=(segment > 0).long()).logits[segment > 0] for net in (backbone, plain)
    )
    assert_close(ours, theirs, rtol=0, atol=0)


def test_both_halves_of_an_attention_are_registered(backbone: ModernBert) -> None:
    backbone.store()
    name = backbone.network.config._attn_implementation
    assert name == f"{backbone.attention}_with_store"
    assert name in AttentionInterface() and name in AttentionMaskInterface()


def test_networks_without_a_store_say_so_and_what_to_do() -> None:
    with pytest.raises(CannotRemember, match=r"MaskedLM keeps no keys .*cache=none\), or use a ModernBERT backbone"):
        masked_lm(BERT).store()
    backbone = modernbert()
    backbone.attention = "flash_attention_2"
    with pytest.raises(CannotRemember, match=r"attention=flash_attention_2 keeps no .* use backbone.attention=sdpa"):
        backbone.store()


def marks(*texts: str) -> Tensor:
    return torch.tensor([[c == "x" for c in text] for text in texts])


SLOTS = marks("....xx.x....", ".......xxxx.")
ASKED = marks("....x.......", "........x.x.")
BEFORE = marks("....xx......", ".......xx.x.")


@pytest.mark.parametrize(
    ("cache", "expected"),
    [
        (Prefix(), marks("....xxxxxxxx", ".......xxxxx")),
        (Dual(), SLOTS),
        (Vicinity(before=2, after=1), marks("..xxxxxxx...", ".....xxxxxxx")),
        (Vicinity(before=0, after=0), SLOTS),
        (Vicinity(before=99, after=99), torch.ones_like(SLOTS)),
        (Delayed(), BEFORE),
    ],
    ids=str,
)
def test_what_a_cache_computes_is_a_matter_of_each_row_alone(cache: Cache, expected: Tensor) -> None:
    assert torch.equal(cache.columns(SLOTS, ASKED, BEFORE), expected)
    for row in range(2):
        here = slice(row, row + 1)
        assert torch.equal(cache.columns(SLOTS[here], ASKED[here], BEFORE[here]), expected[here])


def test_no_cache_is_none() -> None:
    assert nothing() is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        (Prefix, {"refresh_every": 0}, r"cache\.refresh_every=0 is no number of calls: give 1 or more, or null"),
        (Dual, {"refresh_every": 2.5}, r"cache\.refresh_every=2\.5 is no number of calls"),
        (Delayed, {"refresh_every": True}, r"cache\.refresh_every=True is no number of calls"),
        (Vicinity, {"before": -1}, r"cache\.before=-1 is no number of columns: give 0 or more"),
        (Vicinity, {"after": 1.5}, r"cache\.after=1\.5 is no number of columns"),
        (Vicinity, {"refresh_every": -3}, r"cache\.refresh_every=-3"),
    ],
)
def test_numbers_without_sense_are_refused(kind: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        kind(**options)
