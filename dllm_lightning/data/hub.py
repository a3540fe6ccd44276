"""Rows of sets on the Hugging Face hub, and what to do where it cannot be reached."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlparse
from urllib.request import getproxies

from dllm_lightning.data.rows import Reader, Rows, checked


def expect_no_network() -> None:
    """Where the name of the hub does not resolve, its libraries look in their caches at once and not after a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or getproxies():
        return
    try:
        socket.getaddrinfo(urlparse(constants.ENDPOINT).hostname, 443)
    except OSError:
        os.environ["HF_HUB_OFFLINE"] = "1"  # for libraries that are not imported yet
        constants.HF_HUB_OFFLINE = True


@dataclass(frozen=True, eq=False)
class Hub(Rows):
    """One split of a set on the hub; `rows` is what `datasets` gave for it."""

    rows: Any
    name: str

    def __iter__(self) -> Iterator[Any]:
        return (row if number else checked(row, self.name) for number, row in enumerate(self.rows))

    @property
    def fingerprint(self) -> str | None:
        known = getattr(self.rows, "_fingerprint", None)  # a stream has none
        return known and f"{self.name} {known}"

    def where(self, number: int) -> str:
        return f"{self.name}, row {number + 1},"

    def share(self, part: int, parts: int, skip: int = 0, place: Any = None) -> Reader:
        """Whole files where these can be dealt out evenly; else every reader reads all and takes its rows."""
        from datasets.distributed import split_dataset_by_node

        if not skip and self.rows.num_shards % parts == 0:
            mine = split_dataset_by_node(self.rows, part, parts)
            return Streaming(self, mine, 0, 1, f" of share {part + 1} of {parts}" if parts > 1 else "", place)
        return Streaming(self, self.rows.skip(skip), part, parts, "", place, skip)


class Streaming(Reader):
    """A reader of a stream from the hub, which knows its own place: it opens no file that was read to its end."""

    def __init__(
        self, rows: Hub, stream: Any, part: int, parts: int, share: str, place: Any = None, skip: int = 0
    ) -> None:
        self.rows, self.stream, self.share, self.skip = rows, stream, share, skip
        self._place = place or {"read": 0, "stream": None}
        self.read = self._place["read"]
        stream.load_state_dict(self._place["stream"])
        # `iter` and not the stream itself, which would take a share of its own in every worker of a loader
        self._batches = enumerate(stream.iter(batch_size=1), self.read)
        self._mine = ((number, batch) for number, batch in self._batches if number % parts == part)

    def __next__(self) -> tuple[int, Any]:
        number, batch = next(self._mine)
        self.read = number + 1
        row = {name: values[0] for name, values in batch.items()}
        return self.skip + number, row if number else checked(row, self.rows.name)

    @property
    def place(self) -> dict[str, Any]:
        """How many rows were read, and where the stream says it stands."""
        if self.read > self._place["read"]:
            self._place = {"read": self.read, "stream": self.stream.state_dict()}
        return self._place

    def where(self, number: int) -> str:
        return f"{self.rows.where(number)[:-1]}{self.share},"
