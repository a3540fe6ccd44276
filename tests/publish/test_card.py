"""The model card says what the checkpoint knows, and its code works with a tokenizer's own chat template too."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from dllm_lightning.loading import Loaded, load
from dllm_lightning.publish import Origin, publish
from dllm_lightning.publish.tokenizer import TALK
from dllm_lightning.sampler import Reveal
from dllm_lightning.types import Canvas
from tests.data.test_template import CHATML, byte_tokenizer
from tests.publish.models import save_foreign, save_network

PARTS = {part: {"_target_": f"dllm_lightning.{part}.Some"} for part in ("process", "noise", "loss", "backbone")}
COMMAND = "python -m dllm_lightning.train experiment=quickstart 'data.tasks=[copy, add]'"
METRICS = {
    "val/nelbo": 0.41234,
    "val/nelbo_error": 0.0123,
    "val/ppl": 1.51,
    "val/exact_match": 0.967,
    "val/loss/25-50": float("nan"),
    "train/loss": 0.3,
}


def checkpoint(**options: Any) -> dict[str, Any]:
    """As a run would write it, without weights."""
    data = {"path": None, "answer_length": 5} | options
    recipe = {"config": PARTS | {"data": data, "seed": 3}, "command": COMMAND}
    return {"recipe": recipe, "metrics": METRICS, "global_step": 2200, "state_dict": {}}


@pytest.fixture
def foreign(tmp_path: Path) -> Loaded:
    return load(save_foreign(tmp_path / "foreign"))


def written(loaded: Loaded, origin: Origin, folder: Path) -> ModelCard:
    folder.mkdir()
    publish(loaded, origin, folder, title="Some model", name=".")
    return ModelCard.load(folder / "README.md")


def test_it_gives_the_command_the_steps_and_the_scores_with_their_errors(foreign: Loaded, tmp_path: Path) -> None:
    text = written(foreign, Origin.of(checkpoint(), raw=False), tmp_path / "out").text
    assert f"```bash\n{COMMAND}\n```" in text and "2,200 optimizer steps on the toy chat" in text and "seed 3" in text
    rows = [line.split("|")[1:3] for line in text.partition("## Scores")[2].splitlines() if line.startswith("| val/")]
    assert {name.strip(): score.strip() for name, score in rows} == {
        "val/exact_match": "0.967",
        "val/nelbo": "0.412 ± 0.012",
        "val/ppl": "1.51",
    }


def test_it_does_without_what_a_checkpoint_does_not_know(foreign: Loaded, tmp_path: Path) -> None:
    known = checkpoint()
    for key in ("metrics", "global_step"):
        del known[key]
    del known["recipe"]["command"]
    text = written(foreign, Origin.of(known, raw=False), tmp_path / "out").text
    assert "An unknown number of steps" in text and "The checkpoint carries none." in text and "The command" not in text


def test_the_recipe_beside_it_is_plain_json(foreign: Loaded, tmp_path: Path) -> None:
    origin = Origin.of(checkpoint(), raw=True)
    written(foreign, origin, tmp_path / "out")
    recipe = json.loads((tmp_path / "out" / "dllm_lightning.json").read_text(), parse_constant=pytest.fail)
    assert recipe == origin._asdict()
    assert "val/loss/25-50" not in recipe["metrics"] and recipe["metrics"]["train/loss"] == 0.3


@pytest.mark.parametrize("raw", [False, True])
def test_it_says_which_weights_were_measured(raw: bool, foreign: Loaded, tmp_path: Path) -> None:
    averaged = checkpoint() | {"current_model_state": {}}
    text = written(foreign, Origin.of(averaged, raw), tmp_path / "out").text
    assert ("averaged over the steps of its training" in text) != raw
    assert ("measured with the average of the weights, not with these" in text) == raw
    assert not Origin.of(checkpoint(), raw=True).raw  # a run without an average has one kind of weights


@pytest.mark.parametrize(
    ("path", "sources", "on_hub"),
    [
        (None, [], None),
        ("allenai/tulu-3-sft-mixture", ["allenai/tulu-3-sft-mixture"], ["allenai/tulu-3-sft-mixture"]),
        (["chats/mine.jsonl", "/data/set", "some/set"], ["chats/mine.jsonl", "/data/set", "some/set"], ["some/set"]),
        (
            {"ours": {"path": "a.jsonl", "weight": 3}, "gsm8k": "openai/gsm8k"},
            ["a.jsonl", "openai/gsm8k"],
            ["openai/gsm8k"],
        ),
    ],
    ids=["toy", "a set of the hub", "several", "named"],
)
def test_it_names_the_data(
    path: Any, sources: list[str], on_hub: list[str] | None, foreign: Loaded, tmp_path: Path
) -> None:
    """And links what is on the hub."""
    card = written(foreign, Origin.of(checkpoint(path=path), raw=False), tmp_path / "out")
    assert card.data.datasets == on_hub
    assert all(f"`{source}`" in card.text for source in sources)


@pytest.mark.parametrize(
    "asks", ["[unused0]role:assistant", "[unused0]role:assistant ", ""], ids=["as rows", "with a space", "not at all"]
)
def test_its_code_begins_an_answer_as_in_training_whatever_the_tokenizers_own_prompt_does(
    asks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = byte_tokenizer(CHATML.replace("[unused0]role:assistant ", asks))
    tokenizer.save_pretrained(tmp_path / "native")
    save_network(tmp_path / "native", len(tokenizer) + 5, initializer_range=0.5)
    loaded = load(tmp_path / "native")
    text = written(loaded, Origin.of(checkpoint(), raw=False), tmp_path / "out").text
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    canvas = Canvas.left_padded([loaded.template.prompt(TALK[:1], 5)], tokenizer.pad_token_id)
    steps = [*Reveal().trajectory(loaded.denoiser(), canvas)]
    monkeypatch.chdir(tmp_path / "out")
    exec(code, found := {})
    assert torch.equal(found["ids"], steps[-1].x)
    assert capsys.readouterr().out.strip() == loaded.template.answer(steps[-1].x[canvas.editable]).strip()
