"""What a user gets wrong is told in one sentence that names it and the way out: at once, and leaving nothing behind.

Every case runs the real entry point. Unless it is about the network itself, it has to be told before one is built.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from tests.conf.configurations import SPECIAL, TINY, TINY_TOY, Terminal, save_chat, save_tokenizer
from tests.publish.models import save_foreign, save_network, train

BERT = (
    "backbone=masked_lm backbone.pretrained=null +backbone.config={model_type:bert,hidden_size:16,num_hidden_layers:1,"
    "num_attention_heads:2,intermediate_size:16,max_position_embeddings:20}"
)
ASKED = {"role": "user", "content": "what is a fruit"}


class Case(NamedTuple):
    """What is typed (with {here} for the folder of files below), and what the sentence has to say."""

    typed: str
    said: tuple[str, ...]
    late: bool = False  # about the network, so told while it is made

    def __str__(self) -> str:
        return self.typed.replace("{here}/", "").replace("/", ":")


def case(typed: str, *said: str, late: bool = False) -> Case:
    return Case(typed, said, late)


ON_TOY = (
    # keys and options
    case("optimizer.lrr=1", "'optimizer.lrr'", "Did you mean optimizer.lr?"),
    case("samplr.steps=3", "'samplr.steps'", "sampler.steps"),
    case("sampler=confidnce", "sampler=confidnce", "Did you mean confidence?"),
    case("experiment=mdm_tuli", "experiment=mdm_tuli", "Did you mean mdm_tulu or duo_tulu?"),
    case("noise=xyz", "noise=xyz", "Choose one of cosine, geometric, loglinear, polynomial."),
    case("+optimizer.momentum=1", "'optimizer.momentum'", "optimizer has betas, decay, eps, lr"),
    case("logger=null", "logger=null", "~logger"),
    case("noise.max_ratio=0.5,0.8", "several values", "--multirun"),
    case("experiment=quick", "experiment=quick", "Did you mean quickstart?"),
    case("experiment=[quickstart,nonsense]", "experiment=nonsense", "Choose one of chat_small"),
    case("logger.mode=online", "'logger.mode'", "Did you mean"),
    case("+treads=4", "'treads'", "Did you mean threads?"),
    case("~resume", "resume is needed", "leave ~resume away"),
    case("--optimizer.lr=1", "'--optimizer.lr=1'", "write optimizer.lr=1, without dashes"),
    case("--epochs 3", "'--epochs'", "write epochs=VALUE"),
    case("-m optimizer.lr=1,2", "'optimizer.lr=1,2'", "put flags first"),
    case("--cfg everything", "'everything'", "'job'", "--help"),
    case("noise.max_ratio=[", "noise.max_ratio", "'['", "quotes"),
    case("data.template=native", "data.template='native'", "data/template=NAME"),
    case("process.hiding=count", "process.hiding='count'", "process/hiding=NAME"),
    # values
    case("trainer.max_steps=abc", "trainer.max_steps='abc'", "a whole number"),
    case("optimizer.lr=fast", "optimizer.lr='fast'", "a number"),
    case("optimizer.lr=-1", "optimizer.lr=-1", "positive"),
    case("optimizer.lr=nan", "optimizer.lr=nan", "a number"),
    case("optimizer.betas=[2,3]", "optimizer.betas=[2, 3]"),
    case("optimizer.decay=slow", "optimizer.decay='slow'", "cosine"),
    case("noise.max_ratio=1.5", "noise.max_ratio=1.5", "Choose 0 <= min_ratio <= max_ratio <= 1"),
    case("noise.min_ratio=0.9 noise.max_ratio=0.1", "noise.min_ratio=0.9", "noise.max_ratio=0.1", "Choose"),
    case("noise=geometric noise.sigma_min=20.0", "noise.sigma_min=20.0", "choose 0 < sigma_min < sigma_max"),
    case("process.replace.mask=0.7", "process.replace", "mask=0.7", "sum to 1"),
    case("loss.per=word", "loss.per='word'", "token, sequence, batch"),
    case("sampler.steps=-3", "sampler.steps=-3", "1 or more"),
    case("sampler.proposal.temperature=-1.0", "sampler.proposal.temperature=-1.0", "0 for the most probable"),
    case("trainer.max_steps=0", "trainer.max_steps=0", "give 1 or more, or -1"),
    case("trainer.max_steps=-7", "trainer.max_steps=-7", "give 1 or more, or -1"),
    case("trainer.max_epochs=0", "trainer.max_epochs=0", "give 1 or more, or -1"),
    case("trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches=0", "1 or more"),
    case("trainer.max_bad_steps=0", "trainer.max_bad_steps=0", "1 or more"),
    case("trainer.gradient_clip_val=-1", "trainer.gradient_clip_val=-1", "0 or more"),
    case("trainer.log_every_n_steps=-1", "trainer.log_every_n_steps=-1", "0 or more"),
    case("trainer.limit_val_batches=1.5", "1.5", "limit_val_batches", "[0.0, 1.0] or an int"),
    case("trainer.check_val_every_n_epoch=0", "trainer.check_val_every_n_epoch=0", "1 or more"),
    case("trainer.check_val_every_n_epoch=1", "`val_check_interval` (1000)", "training batches (8)", late=True),
    case("trainer.devices=0", "trainer.devices=0", "1 or more", "auto"),
    case("trainer.devices=-3", "trainer.devices=-3", "1 or more", "auto"),
    case("trainer.devices=many", "trainer.devices=many", "1 or more", "auto"),
    case("trainer=ddp_cpu trainer.devices=-1", "trainer.devices=-1", "1 or more", "auto"),
    case("trainer.num_nodes=0", "trainer.num_nodes=0", "1 or more"),
    case("trainer.num_nodes=2", "trainer.num_nodes=2", "torchrun or srun"),
    case("trainer.strategy=nonsense", "'nonsense'", "auto, ddp"),
    case("callbacks.last.every_n_steps=0", "callbacks.last.every_n_steps=0", "1 or more, or null"),
    case("callbacks.checkpoint.mode=smallest", "callbacks.checkpoint", "min, max", "smallest"),
    case("data.num_workers=-1", "data.num_workers=-1", "0 (none) or more"),
    case("threads=many", "threads=many", "a whole number, 1 or more"),
    case("threads=true", "threads=True", "a whole number, 1 or more"),
    case("run=null", "run=None", "leave run out"),
    case("folder=null", "folder=None", "leave folder out"),
    case("trainer.val_check_interval=0", "trainer.val_check_interval=0", "1 or more"),
    case("trainer.precision=float", "trainer.precision='float'", "bf16-mixed"),
    case("trainer.accelerator=abacus", "abacus", "cpu"),
    case("data.batch_size=0", "data.batch_size=0", "at least 1"),
    case("data.batch_size=2.5", "data.batch_size=2.5", "a whole number"),
    case("data.train_size=0", "data.train_size=0", "at least 1"),
    case("data.tasks=[cooking]", "cooking", "copy"),
    case("data.overlong=squeeze", "data.overlong='squeeze'", "cut, whole, drop"),
    case("data.max_length=0", "max_length=0", "at least 1"),
    case("callbacks.samples.lengths=[0]", "callbacks.samples", "lengths=[0]", "at least 1"),
    case("callbacks=ema callbacks.ema.decay=2", "callbacks.ema", "[0,1]"),
    case("seed=-1", "seed=-1", "from 0"),
    case("seed=lucky", "seed='lucky'", "whole number"),
    case("model.validation_draws=0", "model.validation_draws=0", "at least 1", late=True),
    case("backbone.chunk=0", "backbone.chunk=0", "at least 1", late=True),
    case("backbone.attention=none", "backbone.attention='none'", "sdpa", late=True),
    # uniform noise
    case("model=duo sampler=confidence", "Reveal works with MaskedDiffusion", "UniformDiffusion", "Ancestral"),
    case("model=duo loss=masked_ce", "MaskedCE works with MaskedDiffusion", "UniformDiffusion", "CE, Elbo"),
    case("model=mdm loss=ce", "CE works with UniformDiffusion", "MaskedDiffusion", "MaskedCE"),
    case("model=mdm process=uniform", "MDM works with MaskedDiffusion", "UniformDiffusion", "Duo"),
    case("model=duo process=masked", "Duo works with UniformDiffusion", "MaskedDiffusion", "MDM"),
    case("callbacks=annealed", "callbacks.temperature anneals the temperature tau", "MDM has none", "model=duo"),
    case("model=duo noise.max_ratio=0.5", "Elbo cannot be used", "from 0% to 50%"),
    case("model=duo callbacks.temperature.shape=steep", "callbacks.temperature.shape", "log_linear"),
    case("model=duo callbacks.temperature.last=0.0", "callbacks.temperature", "no logarithm reaches 0", "shape=linear"),
    case("model=duo model.tau=-1.0", "model.tau=-1.0", "0 for hard tokens", late=True),
    case("model=duo model.top_k=0", "model.top_k=0", "1 or more, or null", late=True),
    case("model=duo model.curriculum=-1", "model.curriculum=-1", "a share below 1, or 0 for none", late=True),
    case("model=duo model.alpha_range=[1.5,0.1]", "model.alpha_range=[1.5, 0.1]", "between 0 and 1", late=True),
    case("model=duo model.noise_weights=[0.2]", "model.noise_weights=[0.2]", "between 0 and 1", late=True),
    # sizes of a network
    case("backbone.config.model_type=nonsense", "backbone.config.model_type='nonsense'", "modernbert, bert, roberta"),
    case("backbone.config.model_type=modernbrt", "backbone.config.model_type='modernbrt'", "give modernbert"),
    case("~backbone.config.model_type", "backbone.config.model_type=None", "modernbert, bert, roberta"),
    case("backbone.config.num_attention_heads=7", "hidden_size=16", "num_attention_heads=7", "a multiple of 7"),
    case("backbone.config.num_attention_heads=0", "num_attention_heads=0", "1 or more"),
    case("backbone.config.hidden_size=wide", "backbone.config.hidden_size='wide'", "1 or more"),
    case("+backbone.config.hidden_sizes=16", "'backbone.config.hidden_sizes'", "hidden_size"),
    case("+backbone.config.depth=3", "'backbone.config.depth'", "A modernbert reads no such size"),
    case("+backbone.config.vocab_size=5", "backbone.config.vocab_size=5", "tokenizer", "leave it out"),
    case("backbone.config.initializer_range=-1", "modernbert", "'initializer_range'", "-1", late=True),
    case("backbone.config.rope_parameters.full_attention.rope_type=new", "modernbert", "'new'", late=True),
    case(f"{BERT} data.packing=false data.max_length=21", "data.max_length=21", "20", "ModernBERT", late=True),
    # parts that do not go together
    case("loss=elbo process/hiding=floor_count", "Elbo", "rounded-down count", "loss=masked_ce"),
    case("loss=elbo process/replace=bert", "Elbo", "80% masks", "loss=masked_ce"),
    case("loss=elbo noise.max_ratio=0.9", "Elbo", "from 0 to 0.9", "loss=weighted_ce"),
    case("loss=weighted_ce noise.min_ratio=0.15 noise.max_ratio=0.15", "fixed", "loss.weight=level"),
    case("sampler.steps=3 sampler/pace=several", "sampler.steps=3", "Several", "null"),
    case("backbone=masked_lm data.packing=true", "MaskedLM", "data.packing=false"),
    case("data/template=native", "no chat template", "data/template=turns"),
    # checkpoints
    case("threads=0", "threads=0", "give a whole number, 1 or more"),
    case("resume={here}/nothing.ckpt", "nothing.ckpt", "give a file, auto, or null"),
    case("resume={here}/garbage.ckpt", "garbage.ckpt", "no readable checkpoint"),
    case("resume={here}/empty", "/empty", "give a file, auto, or null"),
    case("resume=true", "resume=True", "give a file, auto, or null"),
    case("resume={here}/cut.ckpt", "cut.ckpt", "not a whole file", "Choose another"),
    case("resume={here}/flipped.ckpt", "flipped.ckpt", "does not match its checksum"),
    case("resume={here}/no-recipe.ckpt", "no-recipe.ckpt", "carries no recipe"),
    case("resume={here}/half-recipe.ckpt", "half-recipe.ckpt", "not whole"),
    case("resume={here}/run/checkpoints/last.ckpt", "noise.max_ratio=0.9 (now 1.0)", "old values", late=True),
    case(
        "resume={here}/foreign.ckpt noise.max_ratio=0.9 process/hiding=floor_count loss=masked_ce optimizer.lr=1e-2",
        *("process._target_=other.process.Uniform (now dllm_lightning.process.MaskedDiffusion)", "another run=NAME"),
        late=True,
    ),
    # where it should go
    case("hydra.run.dir={here}/file.txt/run", "file.txt/run", "Not a directory", "choose another place"),
    case("hydra.run.dir={here}/file.txt", "file.txt", "File exists", "choose another place"),
)
WRONG: dict[str, tuple[Any, str]] = {
    "number": (7, "not a mapping"),
    "none": ({"messages": None}, "no messages"),
    "text": ({"messages": "hello"}, "messages is text, not a list"),
    "word": ({"messages": ["hello"]}, "a message is text, not a mapping"),
    "nameless": ({"messages": [{"content": "hello"}]}, "a message without a role"),
    "tool": ({"messages": [ASKED, {"role": "tool", "content": "a"}]}, "unknown role 'tool'"),
    "order": ({"messages": [{"role": "assistant", "content": "a"}, ASKED]}, "roles out of order"),
    "null": ({"messages": [ASKED, {"role": "assistant", "content": None}]}, "content is null, not text"),
    "digit": ({"messages": [ASKED, {"role": "assistant", "content": 3}]}, "content is a number, not text"),
    "list": ({"messages": [ASKED, {"role": "assistant", "content": ["a"]}]}, "content is a list, not text"),
    "half": ({"messages": [ASKED, {"role": "assistant", "content": "\ud83d"}]}, "half a surrogate pair"),
    "blank": ({"messages": [ASKED, {"role": "assistant", "content": " "}]}, "empty content"),
    "unasked": ({"messages": [ASKED]}, "no answer"),
    "latin": (b'{"messages": "\xe9"}', "not UTF-8"),
    "cut": (b'{"messages": [', "not JSON"),
}
"""What is in every row of a file of this name, and what is said of it."""
ON_FILES = (
    case("data.path={here}/missing.jsonl", "missing.jsonl", "no file or folder"),
    case("data.path={here}/empty", "/empty", "holds no data file", ".jsonl"),
    case("data.path={here}/file.txt", "file.txt", ".jsonl"),
    case("data.path={here}/texts.jsonl", "texts.jsonl", "'messages'", "only 'text'", '"role": "user"'),
    case("data.path={here}/blank.jsonl", "no usable train row", "5 rows: empty content"),
    case("data.path={here}/unanswered.jsonl", "no usable train row", "5 rows: no answer"),
    case("data.path={here}/nothing.jsonl", "no usable train row", "no rows at all"),
    case("data.path={here}/garbage.jsonl", "no usable train row", "4 rows: not JSON"),
    *(
        case(f"data.path={{here}}/wrong/{name}.jsonl{then}", *told, said)
        for name, (_, said) in WRONG.items()
        for then, told in (
            ("", ("no usable train row", "5 rows: ")),
            (" data.on_bad_row=raise", (f"{name}.jsonl, line 1,", "It begins", "data.on_bad_row=skip")),
        )
    ),
    case("data.path={here}/late.jsonl data.on_bad_row=raise", "late.jsonl, line 49,", "not JSON", "'garbage'"),
    case("data.path={here}/far.jsonl data.on_bad_row=raise", "far.jsonl, line 145,", "not JSON", late=True),
    case(
        "data.path={here}/far.jsonl data.on_bad_row=raise data.streaming=true data.validation_size=140",
        *("far.jsonl, line 145,", "not JSON"),
        late=True,
    ),
    case("data.path={here}/mixed data.on_bad_row=raise", "mixed/train-2.jsonl, line 49,", "not JSON"),
    case("data.on_bad_row=ignore", "data.on_bad_row='ignore'", "skip, raise"),
    case("data.path={here}/object.json", "object.json", "one JSON object ('data', 'info')", "one row on each line"),
    case("data.path={here}/array.json", "array.json", "begins like a JSON array"),
    case("data.path={here}/typed.parquet", "typed.parquet", "'messages' of type string", "a list of role and content"),
    case("data.path={here}/short.parquet", "short.parquet", "not all of one"),
    case("data.path={here}/flipped.jsonl.gz", "flipped.jsonl.gz", "Is it complete?"),
    case("data.path={here}/broken.jsonl.gz", "broken.jsonl.gz", "Is it complete?"),
    case("data.path={here}/garbage.parquet", "garbage.parquet", "not a Parquet file"),
    case("data.path=nobody/nothing", "'nobody/nothing'", "a local file or folder"),
    case("data.path={path:{here}/chat.jsonl,wieght:2}", "wieght", "weight"),
    case("data.tokenizer=nobody/nothing", "data.tokenizer='nobody/nothing'", "give a folder"),
    case("data.tokenizer={here}/missing", "missing", "data.tokenizer"),
    case("data.tokenizer={here}/maskless", "no mask token", "add_special_tokens"),
    case("data.validation_size=48", "data.validation_size=48", "leaves none", late=True),
    case("data.validation_size=0", "data.validation_size=0", "above 0"),
    case("data.validation_size=-3", "data.validation_size=-3", "above 0"),
    case("data.num_workers=-1", "data.num_workers=-1", "0 (none) or more"),
    case("data.num_proc=0", "data.num_proc=0", "give 1 or more"),
    case("data.streaming=true", "data.validation_size=0.05", "data.validation_size=1000"),
    case("data.streaming=true data.path={path:{here}/chat.jsonl,rows:3}", "rows=3", "a stream cannot do that"),
    case("data.streaming=true data.validation_size=48", "chat has too few rows to stream to 1 process", late=True),
    case("data.template.end=xyz", "'xyz'"),
    case("backbone.config=null", "backbone.pretrained=None", "exactly one", late=True),
    case("backbone.config=null backbone.pretrained=nobody/nothing", "'nobody/nothing'", "local folder", late=True),
)
ON_A_MODEL = (
    case("prompt=hello", "ckpt=PATH"),
    case("ckpt={here}/missing prompt=hello", "missing", "Hugging Face folder"),
    case("ckpt={here}/garbage.ckpt prompt=hello", "garbage.ckpt", "no readable checkpoint"),
    case("ckpt={here}/empty prompt=hello", "/empty", "holds no checkpoint"),
    case("ckpt={here}/empty prompts={here}/missing.txt", "missing.txt", "one prompt per line"),
    case("ckpt={here}/empty prompts={here}/nothing.jsonl", "nothing.jsonl", "asks nothing"),
    case("ckpt={here}/cut.ckpt prompt=hello", "cut.ckpt", "not a whole file", "Choose another"),
    case("ckpt={here}/flipped.ckpt prompt=hello", "flipped.ckpt", "does not match its checksum"),
    case("ckpt={here}/no-recipe.ckpt prompt=hello", "no-recipe.ckpt", "carries no recipe"),
    case("ckpt={here}/half-recipe.ckpt prompt=hello", "half-recipe.ckpt", "not whole"),
    case("ckpt={here}/weightless.ckpt prompt=hello", "weightless.ckpt", "Missing key", "Choose another"),
    case("ckpt={here}/wider.ckpt prompt=hello", "wider.ckpt", "size mismatch", "Choose another"),
    case("ckpt={here}/foreign.ckpt prompt=hello", "foreign.ckpt", "other.process.Uniform", "will not be built"),
    case("ckpt={here}/narrow prompt=hello", "narrow", "ids up to 320", "only 50 logits"),
    case("ckpt={here}/empty prompt=hello length=-1", "length=-1", "1 or more"),
    case("ckpt={here}/empty prompt=hello length=true", "length=True", "1 or more"),
    case("ckpt={here}/empty prompt=hello seed=-1", "seed=-1", "from 0"),
    case("ckpt={here}/empty prompt=hello seed=18446744073709551616", "seed=18446744073709551616", "from 0 to"),
    case("ckpt={here}/empty prompt=hello pause=nan", "pause=nan", "0 or more"),
    case("ckpt={here}/empty prompt=hello format=xml", "format=xml", "plain, json"),
    case("ckpt={here}/empty prompt=hello batch_size=0", "batch_size=0", "1 or more"),
    case("ckpt={here}/empty prompt=hello device=cuda:9", "device=cuda:9", "auto or cpu"),
    case("ckpt={here}/empty prompt=hello device=meta", "device=meta", "auto or cpu"),
    case("ckpt={here}/narrow prompt=hello prompts=file.txt", "prompt='hello'", "prompts='file.txt'", "one of them"),
    case("ckpt={here}/run prompt=hello sampler=nonsense", "sampler=nonsense", "ancestral"),
    case("ckpt={here}/run prompt=hello sampler=random +sampler.heat=1", "'sampler.heat'", "leave it out"),
    case("ckpt={here}/run prompt=hello sampler=random sampler.proposal.temperature=-1.0", "temperature=-1.0", "above"),
    case("ckpt={here}/run prompt=hello length=10000", "length=10000", "8192 at most", "Shorten"),
    case("--ckpt={here}/run --prompt=hello", "'--ckpt=", "without dashes"),
    case("--multirun ckpt={here}/run seed=1,2", "--multirun is for training", "one value"),
    case("{here}/run", "/run'", "KEY=VALUE"),
    case("ckpt={here}/empty prompt=hello lenght=5", "'lenght'", "Did you mean length?"),
)
ON_AN_EXPORT = (
    case("", "run=PATH"),
    case("run={here}/run", "out=FOLDER"),
    case("run={here}/missing out=model", "run='", "missing", "the folder of a run"),
    case("run={here}/empty out=model", "run='", "/empty", "holds no checkpoint"),
    case("run={here}/garbage.ckpt out=model", "garbage.ckpt", "no readable checkpoint"),
    case("run={here}/cut.ckpt out=model", "cut.ckpt", "not a whole file", "Choose another"),
    case("run={here}/flipped.ckpt out=model", "flipped.ckpt", "does not match its checksum"),
    case("run={here}/no-recipe.ckpt out=model", "no-recipe.ckpt", "carries no recipe"),
    case("run={here}/half-recipe.ckpt out=model", "half-recipe.ckpt", "not whole"),
    case("run={here}/weightless.ckpt out=model", "weightless.ckpt", "Missing key", "Choose another"),
    case("run={here}/foreign.ckpt out=model", "foreign.ckpt", "other.process.Uniform", "will not be built"),
    case("run={here}/run out={here}/file.txt", "file.txt", "there already", "another place"),
    case("run={here}/run out={here}/file.txt/model", "file.txt/model", "Not a directory", "another place"),
    case("run={here}/run out={here}/narrow overwrite=true", "narrow", "no earlier export", "another place"),
    case("run={here}/run out=model weights=best", "weights=best", "ema, raw"),
    case("run={here}/run out=model overwrite=2", "overwrite=2", "true nor false"),
    case("run={here}/run out=model private=maybe", "private=maybe", "true nor false"),
    case("run={here}/run out=model hub=me", "hub='me'", "user/name"),
    case("run={here}/run out=model wieghts=raw", "'wieghts'", "Did you mean weights?"),
    case("run={here}/run out=model weights=ema,raw", "weights=ema,raw", "several values"),
    case("-m run={here}/run out=model weights=ema,raw", "-m is for training", "one value"),
    case("--run={here}/run out=model", "'--run=", "without dashes"),
)
ON_A_SWEEP = (
    case("optimizer.lrr=1,2", "'optimizer.lrr'", "Did you mean optimizer.lr?"),
    case("noise=xyz,loglinear", "noise=xyz", "Choose one of"),
    case("noise.max_ratio=[", "noise.max_ratio", "'['", "quotes"),
    case("noise.max_ratio=0.5,0.8 hydra.sweep.dir={here}/file.txt/sweep", "file.txt/sweep", "choose another place"),
)
ON_A_NETWORK = (
    case(
        "backbone.pretrained={here}/narrow data.tokenizer={here}/narrow", "ids up to 320", "only 50 logits", late=True
    ),
    case("backbone.pretrained={here}/empty", "/empty", "config.json", late=True),
    case("data.tokenizer={here}/endless backbone.pretrained={here}/narrow", "no eos and no sep token", "Add one"),
)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one good file, one good tokenizer, and many bad ones."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "empty").mkdir()
    for name in ("nothing.jsonl", "file.txt"):
        (folder / name).touch()
    for name in ("garbage.jsonl", "garbage.parquet", "garbage.ckpt"):
        (folder / name).write_text("garbage\n" * 4)
    rows(folder / "texts.jsonl", {"text": "words"})
    rows(folder / "blank.jsonl", {"messages": [ASKED, {"role": "assistant", "content": " "}]})
    rows(folder / "unanswered.jsonl", {"messages": [ASKED]})
    whole = gzip.compress(save_chat(folder / "chat.jsonl").read_bytes())
    (folder / "broken.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    wrong_files(folder, whole)
    save_tokenizer(folder / "tokenizer")
    save_tokenizer(folder / "maskless", {name: word for name, word in SPECIAL.items() if name != "mask_token"})
    save_tokenizer(folder / "endless", {name: word for name, word in SPECIAL.items() if name != "sep_token"})
    save_network(save_foreign(folder / "narrow"), 50)
    wrong_checkpoints(folder, train(folder / "run") / "checkpoints" / "last.ckpt")
    return folder


def wrong_checkpoints(folder: Path, good: Path) -> None:
    """A good one, spoilt in one place each."""
    whole = good.read_bytes()
    (folder / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    middle = len(whole) // 2
    (folder / "flipped.ckpt").write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])

    def spoilt(name: str, spoil: Callable[[dict[str, Any]], Any]) -> None:
        checkpoint = torch.load(good, weights_only=True)
        spoil(checkpoint)
        torch.save(checkpoint, folder / f"{name}.ckpt")

    spoilt("no-recipe", lambda it: it.pop("recipe"))
    spoilt("half-recipe", lambda it: it["recipe"].update(config=[1, 2]))
    spoilt("weightless", lambda it: it.update(state_dict={}))
    spoilt("wider", lambda it: it["recipe"]["backbone"].update(hidden_size=32))
    spoilt("foreign", lambda it: it["recipe"]["config"]["process"].update(_target_="other.process.Uniform"))


def wrong_files(folder: Path, zipped: bytes) -> None:
    """Rows and files that are wrong each in its own way, some of them after many good rows."""
    from pyarrow import Table, parquet

    for name in ("wrong", "mixed"):
        (folder / name).mkdir()
    for name, (row, _) in WRONG.items():
        line = row if isinstance(row, bytes) else json.dumps(row).encode()
        (folder / "wrong" / f"{name}.jsonl").write_bytes((line + b"\n") * 5)
    good = (folder / "chat.jsonl").read_text()
    (folder / "late.jsonl").write_text(f"{good}garbage\n{good}")
    (folder / "far.jsonl").write_text(f"{good * 3}garbage\n{good}")
    (folder / "mixed" / "train-1.jsonl").write_text(good)
    (folder / "mixed" / "train-2.jsonl").write_text(f"{good}garbage\n")
    (folder / "object.json").write_text('{\n"data": [],\n"info": 1\n}\n')
    (folder / "array.json").write_text('[{"messages": []}\n')
    (folder / "flipped.jsonl.gz").write_bytes(zipped[:100] + b"\xff" * 50 + zipped[150:])
    parquet.write_table(Table.from_pylist([{"messages": "hello"}]), folder / "typed.parquet")
    (folder / "short.parquet").write_bytes((folder / "typed.parquet").read_bytes()[:-9])


def rows(file: Path, row: dict[str, Any]) -> None:
    file.write_text(f"{json.dumps(row)}\n" * 5)


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(tmp_path, monkeypatch, capsys)


def refused(terminal: Terminal, base: Iterable[str], wrong: Case, here: Path, entry: str = "train") -> None:
    """The law: exit code 2, one sentence with everything in it, and a folder as empty as before."""
    if not wrong.late:
        terminal.monkeypatch.setattr("dllm_lightning.assemble.sized", too_late)
    typed = [each.replace("{here}", str(here)) for each in wrong.typed.split()]
    retyped = tuple(f"{each.partition('=')[0]}{then}" for each in typed for then in ("=", "."))
    ran = terminal(*(each for each in base if not each.startswith(retyped)), *typed, entry=entry)
    assert ran.code == 2, ran.out
    (sentence,) = ran.err.splitlines()
    for part in wrong.said:
        assert part in sentence
    assert len(sentence) < 500 and sentence[-1] in ".?)" and "Traceback" not in sentence
    assert not any(terminal.folder.iterdir()), [*terminal.folder.rglob("*")]


def too_late(*_: Any) -> None:
    raise AssertionError("a network is being built, and the mistake was not told")


@pytest.mark.parametrize("wrong", ON_TOY, ids=str)
def test_a_wrong_option_is_one_sentence(wrong: Case, terminal: Terminal, here: Path) -> None:
    refused(terminal, (*TINY, *TINY_TOY), wrong, here)


@pytest.mark.parametrize("wrong", ON_FILES, ids=str)
def test_a_wrong_source_is_one_sentence(wrong: Case, terminal: Terminal, here: Path) -> None:
    files = (f"data.path={here}/chat.jsonl", f"data.tokenizer={here}/tokenizer", f"data.cache_dir={here}/cache")
    refused(terminal, (*TINY, *files), wrong, here)


@pytest.mark.parametrize("wrong", ON_A_MODEL, ids=str)
def test_a_wrong_question_is_one_sentence(wrong: Case, terminal: Terminal, here: Path) -> None:
    refused(terminal, (), wrong, here, entry="generate")


@pytest.mark.parametrize("wrong", ON_AN_EXPORT, ids=str)
def test_a_wrong_export_is_one_sentence(wrong: Case, terminal: Terminal, here: Path) -> None:
    refused(terminal, (), wrong, here, entry="export")


@pytest.mark.parametrize("wrong", ON_A_SWEEP, ids=str)
def test_a_sweep_that_cannot_be_composed_is_one_sentence(wrong: Case, terminal: Terminal, here: Path) -> None:
    refused(terminal, ("-m", *TINY, *TINY_TOY), wrong, here)


@pytest.mark.parametrize("wrong", ON_A_NETWORK, ids=str)
def test_a_network_that_does_not_fit_is_one_sentence(wrong: Case, terminal: Terminal, here: Path) -> None:
    sizes = ("backbone=modernbert", "data.packing=false")
    files = (f"data.path={here}/chat.jsonl", f"data.tokenizer={here}/tokenizer", f"data.cache_dir={here}/cache")
    refused(terminal, (*(each for each in TINY if "backbone" not in each), *sizes, *files), wrong, here)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no /proc")
@pytest.mark.parametrize("entry", ["train", "export"])
def test_a_place_where_nobody_may_write_is_one_sentence(entry: str, terminal: Terminal, here: Path) -> None:
    """Nor may root."""
    base, typed = {
        "train": ((*TINY, *TINY_TOY), "hydra.run.dir=/proc/model"),
        "export": ((), "run={here}/run out=/proc/model"),
    }[entry]
    refused(terminal, base, case(typed, "/proc/model", "another place"), here, entry)


@pytest.mark.parametrize(
    ("typed", "environment", "said"),
    [
        ("logger.mode=online", {}, ("logger.mode=online", "wandb login")),
        ("seed=0", {"WANDB_MODE": "online"}, ("WANDB_MODE=online", "wandb login")),
        ("logger.mode=always", {}, ("logger.mode=always", "online, offline or disabled")),
        ("seed=0", {"WANDB_MODE": "always"}, ("WANDB_MODE=always", "online, offline or disabled")),
    ],
    ids=["option", "environment", "no such option", "no such environment"],
)
def test_wandb_without_a_key_is_one_sentence(
    typed: str, environment: dict[str, str], said: tuple[str, ...], terminal: Terminal, here: Path
) -> None:
    """And no question: whoever insists on online waits at no prompt."""
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        terminal.monkeypatch.delenv(name, raising=False)
    for name, value in {"NETRC": str(here / "nothing"), "HOME": str(here), **environment}.items():
        terminal.monkeypatch.setenv(name, value)
    refused(terminal, (*TINY, *TINY_TOY, "logger=wandb"), case(typed, *said), here)


@pytest.mark.parametrize(
    ("entry", "typed"),
    [
        ("train", (*TINY, *TINY_TOY, "resume=missing")),
        ("generate", ("ckpt=missing", "prompt=hello")),
        ("export", ("run=missing", "out=model")),
    ],
    ids=["train", "generate", "export"],
)
def test_debug_shows_where_it_was_found(entry: str, typed: tuple[str, ...], terminal: Terminal) -> None:
    assert terminal(*typed, entry=entry).code == 2
    terminal.monkeypatch.setenv("DLLM_DEBUG", "")  # so that it is put back after the test
    with pytest.raises(ValueError, match="missing"):
        terminal(*typed, "debug=true", entry=entry)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("typed", ["trainer.accelerator=gpu", "trainer=gpu", "trainer=ddp", "trainer=fsdp"])
def test_a_gpu_that_is_not_there_is_one_sentence(typed: str, terminal: Terminal, here: Path) -> None:
    refused(terminal, (*TINY, *TINY_TOY), case(typed, "needs a GPU", "trainer=cpu"), here)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_one_sentence(terminal: Terminal, here: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    ran = terminal(*TINY, *TINY_TOY, f"hydra.run.dir={locked}/run")
    assert ran.code == 2 and ran.err.startswith(f"The folder '{locked}/run' cannot be made (Permission denied): ")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("optimizer.lrr=1",), "There is no option 'optimizer.lrr'. Did you mean optimizer.lr?"),
        (("data=toy", "loss=elbo", "noise.max_ratio=0.9"), "Elbo cannot be used: "),
    ],
    ids=["a misspelt key", "parts that do not go together"],
)
def test_in_a_real_terminal_too(typed: tuple[str, ...], said: str, tmp_path: Path) -> None:
    """The libraries that are loaded on the way say nothing beside the sentence."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    command = [sys.executable, "-m", "dllm_lightning.train", *typed]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(said) and ran.stderr.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_a_mistake_leaves_what_was_there_before(terminal: Terminal) -> None:
    """A folder that holds a run is not the folder of a run that did not start."""
    kept = terminal.folder / "runs" / "mine" / "notes.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("results")
    (terminal.folder / "runs" / "empty").mkdir()
    for name in ("mine", "empty", "new"):
        assert terminal(*TINY, *TINY_TOY, "noise.max_ratio=2", f"run={name}").code == 2
    assert kept.read_text() == "results" and (terminal.folder / "runs" / "empty").is_dir()
    assert not (terminal.folder / "runs" / "new").exists()
