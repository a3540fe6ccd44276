"""Rows that stop a run: `data.on_bad_row=raise` names the first of them."""

from __future__ import annotations

from typing import Literal

from dllm_lightning.data.documents import Encoder
from dllm_lightning.data.messages import begins
from dllm_lightning.data.rows import BadData, Rows

OnBadRow = Literal["skip", "raise"]


def refuse(rows: Rows, encoder: Encoder) -> None:
    """Raises BadData for the first row that is wrong in itself; a row that is only long is for `overlong` to judge."""
    for number, row in enumerate(rows):
        if (fault := encoder.fault(row)) is not None:
            raise wrong(rows.where(number), fault, row)


def wrong(where: str, fault: str, row: object) -> BadData:
    return BadData(
        f"{where} cannot be trained on: {fault}. It begins {begins(row, 120)}. "
        f"Correct it, or take data.on_bad_row=skip, which counts such rows and goes on."
    )
