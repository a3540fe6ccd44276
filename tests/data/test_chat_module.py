"""From a path to batches: splits, cache, prompts, report, streams, and the batches a model is given."""

import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from rich.console import Console

from dllm_lightning.data import BadData, ToyDataModule, TuluDataModule, Turns, tulu
from dllm_lightning.data.documents import Counts
from dllm_lightning.data.stream import StreamLoader
from dllm_lightning.data.toy import generate, toy_tokenizer
from dllm_lightning.types import Canvas, InvalidTokenizer

ROWS = generate("train", 400, turns=2)
QUESTIONS = [row["messages"][0]["content"] for row in ROWS]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Conversations in a file, and a tokenizer in a folder."""
    toy_tokenizer().save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "chat.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return tmp_path


def module(folder: Path, **options: Any) -> TuluDataModule:
    given = {"path": folder / "chat.jsonl", "tokenizer": str(folder / "tokenizer"), "cache_dir": str(folder / "cache")}
    return TuluDataModule(**{"template": Turns, "max_length": 64, "batch_size": 8} | given | options)


def toy(**options: Any) -> ToyDataModule:
    sizes = {"train_size": 300, "validation_size": 50, "test_size": 40}
    return ToyDataModule(**{"template": Turns, "max_length": 48, "batch_size": 16} | sizes | options)


def ready(data: Any) -> Any:
    data.prepare_data()
    data.setup("fit")
    return data


def texts(data: Any, canvases: Any) -> list[str]:
    """What each document says, its control tokens written out."""
    documents = []
    for canvas in canvases:
        for ids, segment in zip(canvas.ids, canvas.segment, strict=True):
            for number in range(1, int(segment.max()) + 1):
                documents.append(data.tokenizer.decode(ids[segment == number]))
    return documents


def fill(canvases: list[Canvas]) -> float:
    """The share of slots that are not padding."""
    return sum(int((canvas.segment > 0).sum()) for canvas in canvases) / sum(canvas.ids.numel() for canvas in canvases)


@pytest.mark.parametrize("packing", [True, False])
def test_batches_hold_the_conversations_with_their_answers_editable(folder: Path, packing: bool) -> None:
    data = ready(module(folder, packing=packing, batch_size=1))
    canvases = list(data.train_dataloader())
    kept = {row for part in data.documents("train").parts for row in part.store.rows[part.documents].tolist()}
    encoded = data.template.encode([ROWS[row]["messages"] for row in sorted(kept)])
    assert sorted(texts(data, canvases)) == sorted(data.tokenizer.decode(document.ids) for document in encoded)
    assert sum(int(canvas.editable.sum()) for canvas in canvases) == sum(sum(document.editable) for document in encoded)
    assert not any(canvas.editable[canvas.segment == 0].any() for canvas in canvases)
    assert all(canvas.ids.shape == (1, 64) for canvas in canvases) or not packing


def test_a_held_out_split_is_drawn_by_seed_and_shares_no_row_with_training(folder: Path) -> None:
    def rows(split: Any, **options: Any) -> set[int]:
        (part,) = module(folder, **options).documents(split).parts
        return set(part.store.rows[part.documents].tolist())

    assert len(rows("validation")) == 20 and len(rows("validation", validation_size=50)) == 50
    assert rows("train") | rows("validation") == set(range(len(ROWS))) and not rows("train") & rows("validation")
    assert rows("validation") == rows("validation") != rows("validation", split_seed=1)


def test_files_named_after_splits_are_the_splits(folder: Path) -> None:
    for name, rows in {"train": ROWS[:50], "validation": ROWS[50:60], "test": ROWS[60:65]}.items():
        (folder / "set").mkdir(exist_ok=True)
        (folder / "set" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = module(folder, path=folder / "set")
    assert [len(data.documents(split)) for split in ("train", "validation", "test")] == [50, 10, 5]
    data.setup("test")
    assert len(texts(data, data.test_dataloader())) == 5


def test_a_second_start_tokenises_nothing_and_a_change_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ready(module(folder))
    first = texts(data, data.train_dataloader())

    def never(*_: Any) -> Any:
        raise AssertionError("tokenised again")

    monkeypatch.setattr(tulu, "tokenise", never)
    assert texts(data, ready(module(folder)).train_dataloader()) == first
    for changed in ({"max_length": 63}, {"overlong": "drop"}, {"template": lambda t: Turns(t, answers="last")}):
        with pytest.raises(AssertionError, match="tokenised again"):
            ready(module(folder, **changed))
    (folder / "chat.jsonl").write_text("\n".join(map(json.dumps, ROWS[1:])))
    with pytest.raises(AssertionError, match="tokenised again"):
        ready(module(folder))


def test_several_sets_are_mixed_by_weight(folder: Path) -> None:
    (folder / "more.jsonl").write_text("\n".join(map(json.dumps, generate("validation", 100))))
    path = {"chat": folder / "chat.jsonl", "more": {"path": folder / "more.jsonl", "weight": 3, "rows": 20}}
    data = module(folder, path=path, batch_size=1)
    shown = texts(data, data.train_dataloader())
    assert len(shown) == 380 + 3 * 19 and len(set(shown)) <= 380 + 19


def test_prompts_are_conversations_without_their_last_answer(folder: Path) -> None:
    data = module(folder)
    prompts = data.prompts(6)
    assert len(prompts) == 6
    for messages, reference in prompts:
        (row,) = [r for r in ROWS if r["messages"] == [*messages, {"role": "assistant", "content": reference}]]
        assert ROWS.index(row) in data.documents("validation").parts[0].store.rows


def test_prompts_come_from_every_source_in_turn(folder: Path) -> None:
    (folder / "more.jsonl").write_text("\n".join(map(json.dumps, generate("validation", 100))))
    data = module(folder, path=[folder / "chat.jsonl", folder / "more.jsonl"], validation_size=3)
    known = [messages[0]["content"] in QUESTIONS for messages, _ in data.prompts(9)]
    assert known == [True, False] * 3 and len(data.prompts(99)) == 6


def test_toy_questions_judge_their_answers() -> None:
    data = toy()
    references = {messages[-1]["content"]: reference for messages, reference in data.prompts(50)}
    questions = data.questions(50)
    assert len(questions) == 50
    assert all(judge(references[messages[-1]["content"]]) for messages, judge in questions)
    assert not any(judge("wrong") for _, judge in questions)


def test_toy_answers_have_at_least_the_slots_that_were_asked_for() -> None:
    data = toy(answer_length=12)
    documents = data.documents("train")[range(300)]
    assert all(made.editable.sum() == 12 and made.ids[-1] == data.template.end_id for made in documents)


def written(data: Any) -> str:
    console = Console(record=True, width=80, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(data.report())
    return console.export_text()


def test_the_report_says_what_was_used_cut_dropped_and_why(folder: Path) -> None:
    bad = [{"messages": []}, {"messages": []}, {"messages": [{"role": "user", "content": "hm"}]}]
    (folder / "bad.jsonl").write_text("\n".join(map(json.dumps, bad + ROWS[:40])))
    data = module(folder, path=[folder / "chat.jsonl", folder / "bad.jsonl"], max_length=32)
    counts = sum((part.store.counts for part in data.documents("train").parts), start=Counts())
    text = written(data)
    for number in (443, counts.used, counts.answer_tokens, counts.cut_inside):
        assert f"{number:,}" in text
    assert "2 rows dropped: no messages" in text and "1 rows dropped: no answer" in text and "100.0%" in text
    assert "packed rows of 32" in text and "% padding" in text and "[CLS]" in text
    assert "…" not in text.split("one document")[0]  # no column is cut short


def test_the_report_is_printed_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = module(folder)
    data.setup("fit")
    data.setup("validate")
    data.setup("fit")
    assert capsys.readouterr().out.count("packed rows") == 1


class Model(L.LightningModule):
    """Notes what it is given and what it is asked to corrupt."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.given: list[tuple[str, Any]] = []

    def corrupt(self, canvas: Canvas) -> tuple[str, Canvas]:
        return "corrupted", canvas

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.given.append(("train", batch))
        return self.weight.sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.given.append(("validation", batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(**options: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, **options,
    )  # fmt: skip


def test_training_batches_arrive_corrupted_and_validation_batches_clean() -> None:
    model = Model()
    trainer(max_steps=2, num_sanity_val_steps=1, limit_val_batches=1, val_check_interval=1).fit(model, datamodule=toy())
    kinds = [(stage, isinstance(batch, Canvas), type(batch) is tuple) for stage, batch in model.given]
    assert kinds[0] == ("validation", True, False)  # the sanity check
    assert {kind[0]: kind[1:] for kind in kinds} == {"train": (False, True), "validation": (True, False)}


def test_overfitting_sees_the_same_batches_in_every_epoch() -> None:
    model = Model()
    trainer(max_epochs=3, overfit_batches=2, limit_val_batches=0).fit(model, datamodule=toy())
    shown = [batch[1].ids.tolist() for stage, batch in model.given if stage == "train"]
    assert len(shown) == 6 and shown[:2] == shown[2:4] == shown[4:]


def wrong_ways(folder: Path) -> Iterator[tuple[dict[str, Any], type[Exception], str]]:
    (folder / "useless.jsonl").write_text('{"messages": []}\n{"messages": [{"role": "user", "content": "a"}]}')
    (folder / "none.jsonl").write_text("")
    yield {"path": "/nowhere"}, BadData, "no file or folder '/nowhere'"
    yield {"path": folder / "useless.jsonl"}, BadData, r"no usable train row \(1 rows: no messages, 1 rows: no answer\)"
    yield {"path": folder / "none.jsonl"}, BadData, r"no usable train row \(no rows at all\)"
    yield {"tokenizer": "/nowhere"}, InvalidTokenizer, "no folder '/nowhere'"
    yield {"tokenizer": str(folder)}, InvalidTokenizer, "gave no tokenizer .* holds a tokenizer.json"
    yield {"validation_size": 0}, ValueError, "validation_size=0 must be"
    yield {"validation_size": 400}, BadData, "400 usable rows, of which data.validation_size=400 leaves none"
    yield {"batch_size": 0}, ValueError, "batch_size=0"
    yield {"overlong": "crop"}, ValueError, "overlong='crop'"
    yield {"streaming": True}, BadData, "Give a number of rows"


def test_every_wrong_way_gets_a_sentence(folder: Path) -> None:
    for options, kind, sentence in wrong_ways(folder):
        with pytest.raises(kind, match=sentence) as caught:
            ready(module(folder, **options))
        assert "\n" not in str(caught.value)


def test_a_stream_without_an_end_must_be_told_when_to_stop(folder: Path) -> None:
    with pytest.raises(BadData, match=r"A stream has no end: .* trainer\.max_steps"):
        trainer(max_epochs=1).fit(Model(), datamodule=module(folder, streaming=True, validation_size=20))


def stream(folder: Path, rank: int = 0, world: int = 1, **options: Any) -> StreamLoader:
    data = module(folder, streaming=True, validation_size=100, batch_size=2, **options)
    loader: StreamLoader = data.train_dataloader()
    loader.loader.dataset.rank, loader.loader.dataset.world = rank, world  # type: ignore[attr-defined]
    return loader


@pytest.mark.parametrize("packing", [True, False])
def test_a_stream_gives_full_batches_of_rows_that_are_not_for_validation(folder: Path, packing: bool) -> None:
    canvases = list(islice(stream(folder, packing=packing), 40))
    assert {len(canvas.ids) for canvas in canvases} == {2}
    data = module(folder)
    seen = set(texts(data, canvases))
    first, rest = (
        {data.tokenizer.decode(d.ids) for d in data.template.encode([row["messages"] for row in rows])}
        for rows in (ROWS[:100], ROWS[100:])
    )
    assert seen <= rest and not seen & (first - rest) and len(seen) > len(rest) / 4
    assert fill(canvases) > 0.9  # few documents at a time


def test_a_stream_is_shared_between_ranks(folder: Path) -> None:
    data = module(folder)
    shares = [texts(data, islice(stream(folder, rank, 2), 30)) for rank in (0, 1)]
    common = {text for text in shares[0] if text in shares[1]}
    assert all(QUESTIONS.count(q) > 1 for q in QUESTIONS if any(q.lower() in text for text in common)) or not common


def test_a_model_trains_and_validates_on_a_stream(folder: Path) -> None:
    model, data = Model(), module(folder, streaming=True, validation_size=20, num_workers=1)
    trainer(max_steps=12, val_check_interval=5, num_sanity_val_steps=0).fit(model, datamodule=data)
    stages = [stage for stage, _ in model.given]
    assert stages.count("train") == 12 and stages.count("validation") == 2 * len(data.val_dataloader())


def test_a_run_resumed_on_a_stream_sees_what_the_unbroken_run_saw(folder: Path) -> None:
    def shown(steps: int, resume: Path | None = None) -> list[Any]:
        model, data = Model(), module(folder, streaming=True, validation_size=20, batch_size=2)
        fit = trainer(max_steps=steps, limit_val_batches=0)
        fit.fit(model, datamodule=data, ckpt_path=resume)
        fit.save_checkpoint(folder / f"{steps}.ckpt")
        return [batch[1].ids.tolist() for _, batch in model.given]

    unbroken = shown(40)
    assert shown(23) == unbroken[:23]
    assert shown(40, resume=folder / "23.ckpt") == unbroken[23:]


def test_a_stream_of_useless_rows_ends_with_a_sentence(folder: Path) -> None:
    (folder / "useless.jsonl").write_text('{"messages": []}\n' * 300)
    with pytest.raises(BadData, match=r"no usable row among them \(256 no messages\)"):
        next(iter(stream(folder, path=folder / "useless.jsonl")))


def test_a_stream_with_fewer_rows_than_processes_is_a_sentence(folder: Path) -> None:
    (folder / "few.jsonl").write_text("\n".join(map(json.dumps, ROWS[:105])))
    with pytest.raises(BadData, match="few has too few rows to stream to 9 processes"):
        next(iter(stream(folder, rank=8, world=9, path=folder / "few.jsonl")))


real = pytest.mark.skipif("DLLM_DATA" not in os.environ, reason="needs the folder DLLM_DATA")


@real
def test_real_chats_lose_no_answer_that_fits_and_fill_their_rows(tmp_path: Path) -> None:
    root = Path(os.environ["DLLM_DATA"])
    data = TuluDataModule(
        [root / "chat" / name for name in ("tulu3_sample", "oasst", "gsm8k")],
        str(root / "tokenizers" / "modernbert-base"), template=Turns, cache_dir=str(tmp_path),
    )  # fmt: skip
    counts = {part.name: part.store.counts for part in data.documents("train").parts}
    trained = sum(counts[name].answer_tokens for name in ("tulu3_sample", "oasst"))
    assert trained >= 0.95 * sum(counts[name].fitting for name in ("tulu3_sample", "oasst"))
    canvases = list(islice(data.train_dataloader(), 40))
    assert fill(canvases) >= 0.97
