"""Generative perplexity is the judge's own; what is no judge is told in a sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from dllm_lightning.evaluation import NoJudge, load_judge
from tests.evaluation.judges import save_judge

TEXTS = ["the opposite of hot is cold", "apple", "", "three and four and five and six"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_judge(tmp_path_factory.mktemp("judge"))


@pytest.fixture(scope="module")
def mute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge whose tokenizer has nothing to begin a text with."""
    return save_judge(tmp_path_factory.mktemp("mute"), bos=False)


@torch.no_grad()
def test_nats_are_those_of_the_network_token_by_token(folder: Path) -> None:
    judge = load_judge(str(folder))
    verdict = judge.verdict(TEXTS, 3)
    for text, nats, tokens in zip(TEXTS, verdict.nats, verdict.tokens, strict=True):
        ids = [judge.tokenizer.bos_token_id, *judge.tokenizer(text, add_special_tokens=False)["input_ids"]]
        belief = judge.network(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        expected = -sum(float(belief[place, token]) for place, token in enumerate(ids[1:]))
        assert int(tokens) == len(ids) - 1
        assert float(nats) == pytest.approx(expected, abs=1e-4)


def test_how_many_are_judged_at_a_time_changes_nothing(folder: Path) -> None:
    judge = load_judge(str(folder))
    assert_close(judge.verdict(TEXTS, 1).nats, judge.verdict(TEXTS, 8).nats, rtol=1e-5, atol=1e-5)


def test_without_a_beginning_the_first_token_is_given_and_not_scored(mute: Path) -> None:
    judge = load_judge(str(mute))
    assert judge.tokenizer.bos_token_id is None
    assert judge.verdict(TEXTS, 2).tokens.tolist() == [5, 0, 0, 6]


def test_what_is_too_long_is_cut_and_counted(folder: Path) -> None:
    judge = load_judge(str(folder))
    verdict = judge.verdict(["apple " * 100, "apple"], 2)
    assert judge.longest == 32 and verdict.tokens.tolist() == [31, 1] and verdict.cut == 1


def test_a_real_judge_finds_a_story_probable_and_noise_not(data_root: Path) -> None:
    judge = load_judge(str(data_root / "scorers" / "stories260K"))
    story = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
    words = story.split()
    found = judge.verdict([story, " ".join(reversed(words))], 2)
    per_token = found.nats / found.tokens
    assert float(per_token[0]) < 1.0 < 2.0 < float(per_token[1])
    text = (data_root / "scorers" / "stories260K" / "CARD.md").read_text()
    assert "4.47 on one formal sentence" in text


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: shutil.rmtree(folder), "There is no folder judge="),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights as safetensors."),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "holds no weights as safetensors (pytorch_model.bin is a pickle, which may run code as it is read",
        ),
        (lambda folder: (folder / "config.json").write_text("{}"), "gave no causal language model with a tokenizer"),
        (
            lambda folder: rewrite(
                folder, auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}, model_type="own"
            ),
            "asks for code of its own (auto_map), and code that comes with a model is never run here",
        ),
        (
            lambda folder: [file.unlink() for file in folder.glob("tokenizer*")],
            "holds a network but no tokenizer; put its tokenizer.json there",
        ),
        (
            lambda folder: rewrite(folder, n_layer=2),
            "is no causal language model: it has no weights for transformer.h.1",
        ),
    ],
    ids=["nothing", "no weights", "a pickle", "no type", "code", "no tokenizer", "half"],
)
def test_what_cannot_judge_is_told_in_a_sentence(folder: Path, tmp_path: Path, spoil: object, said: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    spoil(copy)  # type: ignore[operator]
    with pytest.raises(NoJudge) as refused:
        load_judge(str(copy))
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_network_that_reads_both_ways_is_no_judge(tmp_path: Path) -> None:
    with pytest.raises(NoJudge, match=r"no causal language model: what it says of a token depends on .* behind it"):
        load_judge(str(save_judge(tmp_path / "bert", "bert")))


def rewrite(folder: Path, **values: object) -> None:
    """Changes a folder's config.json."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))
