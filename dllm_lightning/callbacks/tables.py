"""A table of texts, and how each logger keeps one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger


class Table(NamedTuple):
    name: str
    columns: list[str]
    rows: list[list[Any]]


def to_loggers(loggers: Sequence[Logger], tables: Sequence[Table], step: int) -> None:
    """W&B gets tables, TensorBoard markdown; a CSV logger has no place for text (its run keeps samples.csv)."""
    for logger in loggers:
        for table in tables:
            if isinstance(logger, WandbLogger):
                logger.log_table(f"val/{table.name}", columns=table.columns, data=table.rows, step=step)
            elif isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text(f"val/{table.name}", _markdown(table), step)


def show(table: Table) -> None:
    """Prints a table to the terminal, texts cut at three lines."""
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(title=f"{table.name} at step {table.rows[0][0]}", title_justify="left", show_lines=True)
    for column in table.columns[1:]:
        grid.add_column(column, overflow="fold", max_width=48)
    for row in table.rows:
        grid.add_row(*(Text(_short(cell)) for cell in row[1:]))
    Console().print(grid)


def _short(cell: Any, limit: int = 140) -> str:
    text = str(cell).replace("\n", "⏎")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _markdown(table: Table) -> str:
    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |"

    return "\n".join([line(table.columns), line(["---"] * len(table.columns)), *map(line, table.rows)])
