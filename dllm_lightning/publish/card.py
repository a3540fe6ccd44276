"""The model card: what the model is, how to ask it with no code of ours, what it was trained on, and what it scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dllm_lightning.backbone.time_embedding import TIME_FILE
from dllm_lightning.data.messages import ROLES
from dllm_lightning.data.turns import Turns
from dllm_lightning.loading import Loaded
from dllm_lightning.process import MaskedDiffusion, Process, UniformDiffusion
from dllm_lightning.publish.clock import Clock
from dllm_lightning.publish.hub import NAME
from dllm_lightning.publish.manner import Manner
from dllm_lightning.publish.origin import Origin
from dllm_lightning.publish.sampling import MASKED
from dllm_lightning.publish.sampling_uniform import UNIFORM
from dllm_lightning.publish.tokenizer import TALK, CannotPublish, Mend

MANNERS: dict[type[Process], Manner] = {MaskedDiffusion: MASKED, UniformDiffusion: UNIFORM}

TITLES = {
    "val/nelbo": "bound on the negative log-likelihood (NELBO), nats per answer token",
    "val/ppl": "perplexity, exp of the bound",
    "val/unigram_entropy": "for comparison: nats per answer token of the token frequencies alone",
    "val/exact_match": "share of answers that are right word for word",
}

TOLD = """ It is told
how much of the answer is noise, by the weights in `{file}`; without them it believes something else."""

CARD = """\
---
{front}
---

# {title}

{opening} The network is a
`{network}` with {parameters:,} weights{weights}.{told}

## Asking it

With torch and transformers {transformers} or newer, and nothing else:

```python
{sampling}```

With dllm_lightning, live in the terminal, as it was trained (`dllm_lightning.json` says how):

```bash
python -m dllm_lightning.generate ckpt=FOLDER prompt={question}
```

## How a conversation is written

The tokenizer's chat template does it. A question, up to where its answer begins, is

```
{rendered}
```

An answer begins after {begins}, and ends with the first {end_word} ({end}); what stands in the slots after it means
nothing. {room}

| token | id | |
|---|---|---|
{markers}

In plain transformers a message that spells one of the tokenizer's special tokens, such as {mask_word}, becomes that
token: a stranger's text can end a turn or open another. In dllm_lightning it stays text.

## Training

{training}

## Scores

{scores}
"""


def card(loaded: Loaded, origin: Origin, tokenizer: Any, mended: Mend, title: str, name: str) -> str:
    """The card of a model that is loaded by `name`, with a tokenizer that has its chat template.

    Raises CannotPublish for a process of which no card can tell how it answers.
    """
    import transformers

    template, network, manner = loaded.template, loaded.network, manner_of(loaded.process)
    mask_word = _shown(tokenizer, tokenizer.mask_token_id)
    *_, answer = template.turns(("user", "assistant"))
    slots = origin.config["data"].get("answer_length")
    return CARD.format(
        front=_front(origin, manner),
        title=title,
        opening=manner.opening.format(mask_word=mask_word),
        network=type(network).__name__,
        parameters=sum(p.numel() for p in network.parameters()),
        weights=_weights(origin),
        told=TOLD.format(file=TIME_FILE) if Clock.of(loaded).lines else "",
        transformers=transformers.__version__.partition(".")[0],
        sampling=manner.program(loaded, tokenizer, mended, name, slots or 64),
        question=json.dumps(TALK[0]["content"]),
        rendered=tokenizer.apply_chat_template(list(TALK[:1]), tokenize=False, add_generation_prompt=True),
        begins=" ".join(f"{_shown(tokenizer, i)} ({i})" for i in answer.before),
        room=f"It was trained to fill {slots} slots or more with it." if slots else "",
        markers="\n".join(_markers(loaded, tokenizer, manner)),
        training=_training(origin),
        scores=_scores(origin),
        mask_word=mask_word,
        end_word=_shown(tokenizer, template.end_id),
        end=template.end_id,
    )


def manner_of(process: Process) -> Manner:
    """How this process answers. Raises CannotPublish where no card can tell."""
    for kind, manner in MANNERS.items():
        if isinstance(process, kind):
            return manner
    known = " or ".join(kind.__name__ for kind in MANNERS)
    raise CannotPublish(f"No model card can tell how {type(process).__name__} answers: it has words for {known}.")


def _shown(tokenizer: Any, i: int) -> str:
    return f"`{tokenizer.convert_ids_to_tokens(i)}`"


def _front(origin: Origin, manner: Manner) -> str:
    """What the hub reads."""
    from huggingface_hub import ModelCardData

    on_hub = [source for source in origin.sources if _is_hub_id(source)]
    base = str(origin.config["backbone"].get("pretrained") or "")
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=manner.task,
        tags=["diffusion-language-model", manner.tag, "dllm_lightning"],
        base_model=base if _is_hub_id(base) else None,
        datasets=on_hub or None,
    )
    return data.to_yaml().strip()


def _is_hub_id(name: str) -> bool:
    """Whether this is a name on the hub, and not a place on disk."""
    on_disk = Path(name).exists() or name.endswith((".json", ".jsonl", ".gz", ".parquet"))
    return NAME.fullmatch(name) is not None and not on_disk


def _weights(origin: Origin) -> str:
    if not origin.averaged:
        return ""
    return ": the last step's, not their average" if origin.raw else ", averaged over the steps of its training"


def _markers(loaded: Loaded, tokenizer: Any, manner: Manner) -> list[str]:
    """A line for every control token that a conversation is written with."""
    template = loaded.template
    roles = ROLES if isinstance(template, Turns) else ROLES[1:]  # another template may refuse a system message
    meant = {} if manner.mask is None else {tokenizer.mask_token_id: manner.mask}
    meant |= {template.end_id: "ends an answer"}
    if isinstance(template, Turns):
        meant[template.end_id] = "ends an answer, and every other turn"
    meant |= {} if tokenizer.cls_token_id is None else {tokenizer.cls_token_id: "begins the text"}
    for role, turn in zip(roles, template.turns(roles), strict=True):
        opening = [i for i in turn.before if i in template.control_ids and i not in meant]
        meant |= {i: f"stands before the {role}'s message" for i in opening}
    return [f"| {_shown(tokenizer, i)} | {i} | {text} |" for i, text in meant.items()]


def _training(origin: Origin) -> str:
    parts = {part: str(origin.config[part]["_target_"]).rpartition(".")[2] for part in ("process", "noise", "loss")}
    steps = f"{origin.steps:,} optimizer steps" if origin.steps is not None else "An unknown number of steps"
    sources = ", ".join(f"`{source}`" for source in origin.sources) or "the toy chat that dllm_lightning makes itself"
    said = (
        f"{steps} on {sources}: process `{parts['process']}`, noise "
        f"`{parts['noise']}`, loss `{parts['loss']}`, seed {origin.config.get('seed')}."
    )
    return said if origin.command is None else f"{said} The command:\n\n```bash\n{origin.command}\n```"


def _scores(origin: Origin) -> str:
    """Every number of the last validation, with its standard error where one is known."""
    scores = {name: value for name, value in origin.metrics.items() if name.startswith("val/")}
    if not scores:
        return "The checkpoint carries none."
    rows = ["| | score | |", "|---|---|---|"]
    for name, value in scores.items():
        if name.endswith("_error"):
            continue
        error = scores.get(f"{name}_error")
        shown = f"{value:.4g}" if error is None else f"{value:.3f} ± {error:.3f}"
        rows.append(f"| {name} | {shown} | {TITLES.get(name, '')} |")
    of = "\n\nThey were measured with the average of the weights, not with these." if origin.raw else ""
    return "On the validation split, ± one standard error:\n\n" + "\n".join(rows) + of
