"""The data module of any chat: documents in, canvases out, noised on the device.

A leaf says which tokenizer it has, and which documents and conversations each split holds. Batching, order, shares of
the ranks and the report are here, the same for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from rich.console import Console, Group

from dllm_lightning.data.documents import Counts, Encoder, Overlong
from dllm_lightning.data.messages import Message
from dllm_lightning.data.order import Bucketed, Loader, Once, Order, Packed, TrainingLoader
from dllm_lightning.data.packing import Layout
from dllm_lightning.data.report import batches, example, median, usage
from dllm_lightning.data.rows import BadData
from dllm_lightning.data.store import Documents, Part
from dllm_lightning.data.template import ChatTemplate
from dllm_lightning.types import Canvas, Vocab

Split = Literal["train", "validation", "test"]


class ChatDataModule(LightningDataModule, ABC):
    """Conversations as batches of clean canvases; the model noises them on the device, afresh at every step.

    Args:
        template: makes a ChatTemplate of a tokenizer.
        max_length: ids per document, and slots per packed row.
        overlong, answer_length: what happens to longer rows, and to short answers: see Encoder.
        packing: several documents in a training row; otherwise one, in batches of similar lengths.
        batch_size: rows per device and step; `eval_batch_size` the same when evaluating (null: as in training).
        num_workers: processes that lay out batches, per device.
        seed: of the order of the documents, together with the epoch.
    """

    def __init__(
        self,
        template: Callable[[Any], ChatTemplate],
        max_length: int = 512,
        overlong: Overlong = "cut",
        answer_length: int | None = None,
        packing: bool = True,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        pin_memory: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1 or (eval_batch_size is not None and eval_batch_size < 1):
            raise ValueError(f"data.batch_size={batch_size} and eval_batch_size={eval_batch_size} must be at least 1.")
        if num_workers < 0:
            raise ValueError(f"data.num_workers={num_workers} is no number of processes: give 0 (none) or more.")
        self._template = template
        self.max_length, self.overlong, self.answer_length = max_length, overlong, answer_length
        self.packing, self.batch_size, self.eval_batch_size = packing, batch_size, eval_batch_size
        self.num_workers, self.pin_memory, self.seed = num_workers, pin_memory, seed
        self._documents: dict[Split, Documents] = {}
        self._reported = False
        self._training: Any = None
        self._place: dict[str, Any] | None = None

    @cached_property
    @abstractmethod
    def tokenizer(self) -> Any:
        """A Hugging Face tokenizer."""

    @property
    def kept(self) -> tuple[Split, ...]:
        """The splits that a training run holds as documents."""
        return ("train", "validation")

    @abstractmethod
    def parts(self, split: Split) -> list[Part]:
        """The documents of a split."""

    @abstractmethod
    def conversations(self, split: Split) -> Iterable[Sequence[Message]]:
        """Conversations of a split, as they were written; those that are documents, in any order."""

    @cached_property
    def template(self) -> ChatTemplate:
        return self._template(self.tokenizer)

    @cached_property
    def vocab(self) -> Vocab:
        """What the ids mean, under a network as wide as the tokenizer."""
        return Vocab.of(self.tokenizer, end_id=self.template.end_id)

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder(self.template, self.max_length, self.overlong, self.answer_length)

    def documents(self, split: Split) -> Documents:
        """All documents of a split; BadData if there are none."""
        if split not in self._documents:
            parts = self.parts(split)
            if not sum(len(part.documents) for part in parts):
                raise nothing_usable(split, sum((part.store.counts for part in parts), start=Counts()))
            self._documents[split] = Documents(parts)
        return self._documents[split]

    def check(self) -> None:
        """A first look, before a network is built: raises for options or a tokenizer that cannot serve."""
        assert self.encoder.max_length == self.max_length

    def setup(self, stage: str) -> None:
        needed: dict[str, tuple[Split, ...]] = {"fit": self.kept, "validate": ("validation",), "test": ("test",)}
        for split in needed.get(stage, ()):
            self.documents(split)
        if stage == "fit" and not self._reported and (self.trainer is None or self.trainer.is_global_zero):
            self._reported = True
            Console().print(self.report())

    @property
    def rows_per_batch(self) -> int | None:
        """Rows of a global training batch, where the place in an epoch can be told in rows."""
        return self._world * self.batch_size

    def order(self, split: Split) -> Order:
        """Which documents meet in which global batch of a split."""
        documents, seed = self.documents(split), self.seed
        size = self._world * (self.batch_size if split == "train" else self.eval_batch_size or self.batch_size)
        if split != "train":
            return Once(documents.lengths, size, seed)
        if self.packing:
            return Packed(documents.lengths, size, seed, documents.weights, self.max_length)
        return Bucketed(documents.lengths, size, seed, documents.weights)

    def layout(self, split: Split) -> Layout:
        """How the rows of a split become a canvas."""
        return Layout(self.vocab.pad_id, self.max_length if split == "train" and self.packing else None)

    def train_dataloader(self) -> Any:
        self._training = self.training_loader()
        if self._place is not None:
            self._training.load_state_dict(self._place)
            self._place = None
        return self._training

    def training_loader(self) -> Any:
        """Batches of the training split, on and on from a place that can be kept."""
        trainer: Any = self.trainer
        overfit = trainer is not None and trainer.overfit_batches > 0  # the same few batches in every epoch
        return self._loader("train", Loader if overfit else TrainingLoader)

    def state_dict(self) -> dict[str, Any]:
        """Where the training loader stands. Lightning keeps it too, but forgets it where it made the loader early, to
        count the steps of a schedule."""
        return {"training": self._training.state_dict()} if hasattr(self._training, "state_dict") else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._place = state.get("training")
        if self._training is not None and self._place is not None:
            self._training.load_state_dict(self._place)

    def val_dataloader(self) -> Loader:
        return self._loader("validation", Loader)

    def test_dataloader(self) -> Loader:
        return self._loader("test", Loader)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Noises a training batch, on the device. In validation the model does so itself, several times."""
        trainer: Any = self.trainer
        fresh = trainer.training and isinstance(batch, Canvas)
        return trainer.lightning_module.corrupt(batch) if fresh else batch

    def prompts(self, count: int, split: Split = "validation") -> list[tuple[list[Message], str]]:
        """Conversations up to their last answer, and that answer as written; those that fit into `max_length`."""

        def fits(messages: Sequence[Message]) -> bool:
            return len(self.template.encode([messages])[0].ids) <= self.max_length

        answered = (chat if chat[-1]["role"] == "assistant" else chat[:-1] for chat in self.conversations(split))
        return [([*chat[:-1]], chat[-1]["content"]) for chat in islice(filter(fits, answered), count)]

    def questions(self, count: int, split: Split = "validation") -> list[tuple[list[Message], Callable[[str], bool]]]:
        """Questions whose answers can be judged, each with its judge; none where right and wrong cannot be told."""
        return []

    def kind(self, messages: Sequence[Message]) -> str | None:
        """What kind of question a conversation ends with, where the data have kinds."""
        return None

    def report(self) -> Group:
        """What was used, cut and dropped, how much of a batch is padding, and one example with its answers marked."""
        splits = {split: self.documents(split) for split in self.kept}
        lines = [batches(split, held, self.order(split), self.layout(split)) for split, held in splits.items()]
        table = usage({split: held.parts for split, held in splits.items()})
        return Group(table, *lines, example(median(splits[self.kept[0]]), self.template))

    @property
    def _rank(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_rank

    @property
    def _world(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size

    def _loader(self, split: Split, kind: type[Loader]) -> Loader:
        options = {"num_workers": self.num_workers, "pin_memory": self.pin_memory}
        return kind(self.documents(split), self.order(split), self.layout(split), self._rank, self._world, **options)


def nothing_usable(split: Split, counts: Counts) -> BadData:
    """Says why no row of a split can be used."""
    reasons = ", ".join(f"{count} rows: {reason}" for reason, count in counts.dropped.most_common())
    return BadData(
        f"There is no usable {split} row ({reasons or 'no rows at all'}). A row is system (optional), user, "
        f"assistant ..., each with some text, and an answer that begins within data.max_length."
    )
