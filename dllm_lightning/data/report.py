"""What became of the data, for the person who starts a run: a table, a line per split, and one example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np
from rich import box
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from dllm_lightning.data.documents import Counts
from dllm_lightning.data.order import Order
from dllm_lightning.data.packing import Layout, Tokens
from dllm_lightning.data.store import Documents, Part
from dllm_lightning.data.template import ChatTemplate

ANSWER, CONTROL, PROMPT = "bold green underline", "magenta", "dim"
REASONS = 12  # told by name
LONGEST = 400  # characters of a question or an answer in the example


def usage(splits: Mapping[str, Sequence[Part]]) -> Table:
    """Rows and answer tokens used, cut and dropped: source by source for training, summed up for other splits.

    Where a source gives some of its training rows for validation, these are counted once, with the training rows.
    """
    table = Table(box=box.SIMPLE_HEAD, caption_justify="left", pad_edge=False)
    table.add_column("source", max_width=20, overflow="ellipsis", no_wrap=True)
    for name in ("rows", "used", "cut", "dropped", "answer\ntokens", "of those\nthat fit"):
        table.add_column(name, justify="right", no_wrap=True)
    total, seen = Counts(), set[int]()
    for split, parts in splits.items():
        counts = {part.name: part.store.counts for part in parts if id(part.store) not in seen}
        seen |= {id(part.store) for part in parts}
        whole = sum(counts.values(), start=Counts())
        if split == "train" and len(counts) > 1:
            for name, count in counts.items():
                table.add_row(name, *_cells(count))
        if counts:
            table.add_section()
            table.add_row(split, *_cells(whole), style="bold")
        total += whole
    table.caption = "\n".join(
        f"{count:,} {what}"
        for what, count in (
            ("rows cut after an answer", total.cut_after),
            ("rows cut inside their last answer, which is left without an end", total.cut_inside),
            *_reasons(total.dropped),
            ("end tokens filled in after the answers, learnt too", total.tail),
        )
        if count
    )
    return table


def streamed(rows: int, dropped: Counter[str]) -> Text:
    """What a stream has met."""
    lines = [f"{rows:,} rows read", *(f"{count:,} {what}" for what, count in _reasons(dropped) if count)]
    return Text.assemble(("train: ", "bold"), "\n".join(lines))


def batches(split: str, documents: Documents, order: Order, layout: Layout) -> Text:
    """How the documents of a split fill its batches in one epoch."""
    lengths = [[sum(documents.lengths[row].tolist()) for row in map(list, batch)] for batch in order.batches(0)]
    rows, tokens = sum(map(len, lengths)), sum(map(sum, lengths))
    slots = sum(len(batch) * (layout.width or max(batch)) for batch in lengths)
    shape = f"{rows:,} packed rows of {layout.width}" if layout.width else "rows of their own"
    text = f"{len(documents):,} documents in {shape}, {len(lengths):,} batches, {1 - tokens / slots:.2%} padding"
    return Text.assemble((f"{split}: ", "bold"), text)


def example(document: Tokens, template: ChatTemplate) -> Panel:
    """A document with its answer slots underlined in green, and its control tokens in magenta."""
    slots = zip(document.ids.tolist(), document.editable.tolist(), strict=True)
    text = Text()
    for (control, editable), run in groupby(slots, key=lambda slot: (slot[0] in template.control_ids, slot[1])):
        ids = [i for i, _ in run]
        if not control:
            words = template.plain.decode(ids).replace("\n", "⏎")
            text.append(f"{words[:LONGEST]} …" if len(words) > LONGEST else words, ANSWER if editable else PROMPT)
        for i, same in groupby(ids if control else ()):
            times = len(list(same))
            text.append(template.tokenizer.convert_ids_to_tokens(i), f"{CONTROL} underline" if editable else CONTROL)
            text.append(f" × {times} " if times > 1 else "", CONTROL)
    return Panel(text, title="one document; its answers are underlined", title_align="left", box=box.ROUNDED)


def median(documents: Documents) -> Tokens:
    """The document of median length."""
    return documents[[int(np.argsort(documents.lengths, kind="stable")[len(documents) // 2])]][0]


def _reasons(dropped: Counter[str]) -> Iterator[tuple[str, int]]:
    """Why rows were dropped, the commonest reasons first; the roles that somebody makes up may be many."""
    common = dropped.most_common(REASONS)
    yield from ((f"rows dropped: {reason}", count) for reason, count in common)
    yield f"rows dropped for {len(dropped) - len(common)} other reasons", dropped.total() - sum(dict(common).values())


def _cells(counts: Counts) -> list[str]:
    cut, dropped = counts.cut_after + counts.cut_inside, counts.dropped.total()
    share = f"{counts.answer_tokens / counts.fitting:.1%}" if counts.fitting else "-"
    return [*(f"{number:,}" for number in (counts.rows, counts.used, cut, dropped, counts.answer_tokens)), share]
