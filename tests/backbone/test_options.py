"""Options change how the work is done, not what comes out: checkpointing, compiling, precision, kernels, recipes."""

from __future__ import annotations

import json
import logging
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from dllm_lightning.backbone import InvalidBackbone, MaskedLM, ModernBert, networks
from tests.backbone.nets import BERT, MODERNBERT, ROBERTA, documents, everywhere, masked_lm, modernbert, rows

IDS, SEGMENT = rows([documents((7, 12)), documents((17,), seed=1)], 20)
AT = torch.arange(0, 40, 3)


def surprise(logits: Tensor, start: int, stop: int) -> Tensor:
    return -logits.log_softmax(-1)[:, :1]


def gradients(backbone: ModernBert) -> dict[str, Tensor]:
    backbone.train()
    backbone(IDS, torch.zeros(IDS.shape), SEGMENT, AT, score=surprise)[0].backward()
    return {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    """And it is really there: the layers run once more on the way back."""
    plain = gradients(modernbert())
    backbone, calls = modernbert(gradient_checkpointing=True), []
    backbone.layers[1].attn.register_forward_hook(lambda *_: calls.append(1))
    assert_close(gradients(backbone), plain)
    assert len(calls) == 2


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """`compile` with everything of torch.compile but the kernels, whose compilation takes minutes."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager", fullgraph=True))


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
def test_a_compiled_network_is_one_graph_with_the_same_logits_and_gradients_and_names() -> None:
    """Lengths may change from batch to batch."""
    plain, backbone = (modernbert(sizes={"num_hidden_layers": 2}, compile=on) for on in (False, True))
    assert backbone.state_dict().keys() == plain.state_dict().keys()
    assert_close(gradients(backbone), gradients(plain))
    with torch.no_grad():
        layout = rows([documents((7, 12)), documents((17,), seed=1)], 26)
        assert_close(everywhere(backbone, *layout), everywhere(plain, *layout))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_folder_in_low_precision_becomes_float32_weights(tmp_path: Path, dtype: torch.dtype) -> None:
    saved = modernbert().network.to(dtype)
    saved.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    backbone = ModernBert(pretrained=str(tmp_path))
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}
    weights = saved.state_dict()
    assert_close({k: v.to(dtype) for k, v in backbone.network.state_dict().items()}, weights)
    again = ModernBert(config=backbone.recipe)
    assert {p.dtype for p in again.parameters()} == {torch.float32}


@pytest.mark.parametrize("config", [MODERNBERT, BERT, ROBERTA], ids=lambda config: config["model_type"])
def test_a_recipe_is_plain_and_builds_the_same_network_again(config: dict[str, Any]) -> None:
    """Twice over: a recipe that came out of a recipe is the same."""
    kind: type[MaskedLM] = ModernBert if config is MODERNBERT else MaskedLM
    backbone = kind(config=config)
    recipe = json.loads(json.dumps(backbone.recipe))
    again = kind(config=recipe)
    assert again.recipe == recipe
    again.load_state_dict(backbone.state_dict())
    ids, segment = rows([documents((17,))], 17)
    assert_close(everywhere(again.eval(), ids, segment), everywhere(backbone.eval(), ids, segment))


def test_a_missing_kernel_gives_way_to_sdpa_and_is_mentioned_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.utils.is_flash_attn_2_available", lambda: False)
    monkeypatch.setattr(networks, "_missed", set())
    with caplog.at_level(logging.WARNING):
        backbones = [modernbert(attention="flash_attention_2") for _ in range(2)]
    assert [backbone.attention for backbone in backbones] == ["sdpa", "sdpa"]
    assert backbones[0].network.config._attn_implementation == "sdpa"
    ours = [r.getMessage() for r in caplog.records if r.name == networks.__name__]
    assert ours == ["backbone.attention=flash_attention_2 is not available here, so sdpa takes its place."]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, r"Give exactly one of them"),
        ({"pretrained": "x", "config": MODERNBERT}, r"Give exactly one of them"),
        ({"config": MODERNBERT, "chunk": 0}, r"backbone\.chunk=0 slots"),
        ({"config": MODERNBERT, "attention": "flash"}, r"backbone\.attention='flash' is no .* sdpa, eager"),
        ({"config": {"hidden_size": 8}}, r"No network can be made of backbone\.config with model_type=None"),
        (
            {"config": {"model_type": "modernbret"}},
            r"No network can be made of backbone\.config with model_type=modernbret",
        ),
        ({"config": MODERNBERT | {"num_attention_heads": 5}}, r"No network can be made of .*\(5\)"),
        ({"pretrained": "./nowhere"}, r"There is no folder './nowhere'"),
        ({"pretrained": "~/nowhere"}, r"There is no folder '/.*nowhere'"),
        ({"pretrained": "nobody/nothing"}, r"The hub id 'nobody/nothing' gave no masked .* give a local folder"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_built_is_refused_in_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidBackbone, match=sentence) as refused:
        ModernBert(**options)
    assert "\n" not in str(refused.value)


def test_a_folder_without_a_network_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidBackbone, match=r"The folder .* gave no masked language model\. It needs a config\.json"):
        ModernBert(pretrained=str(tmp_path))
    masked_lm(BERT).network.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(InvalidBackbone, match=r"The folder .* gave no masked language model") as refused:
        MaskedLM(pretrained=str(tmp_path))
    assert "\n" not in str(refused.value)
