"""The LightningModule around a process and a backbone: corrupt, predict, score, log."""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar

import lightning as L
import torch
from jaxtyping import Float
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from dllm_lightning.backbone import Backbone
from dllm_lightning.backbone.chunked import Score
from dllm_lightning.loss import Loss
from dllm_lightning.model.metrics import NatsPerToken, PerBand, UnigramEntropy, noise_share
from dllm_lightning.model.optimizer import AdamW
from dllm_lightning.process import PerDocument, PerPlace, Process
from dllm_lightning.types import Canvas, Corrupted


class DiffusionModule(L.LightningModule, ABC):
    """Trains a backbone to undo a process.

    Training noise is a function of (seed, global step, row of the global batch), and validation noise of the documents
    themselves: no random state needs saving, two processes train as one would on their rows together, and a score
    depends on weights and data only.

    `recipe` is what a checkpoint carries besides the weights: plain values from which the model is built again.
    """

    accepts: ClassVar[tuple[type[Process], ...]]
    """The processes this model is made for."""
    objective: ClassVar[type] = Loss
    """The kind of loss that it descends on."""
    time_conditioning: ClassVar[bool] = False
    """Whether its network is told how much is noise, unless backbone.time_conditioning says otherwise."""
    process: Process
    backbone: Backbone
    loss: Loss
    _sums: Tensor

    def __init__(
        self,
        process: Process,
        backbone: Backbone,
        loss: Loss,
        optimizer: AdamW,
        seed: int = 0,
        validation_draws: int = 4,
        recipe: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if validation_draws < 1:
            raise ValueError(
                f"model.validation_draws={validation_draws}: each validation document needs at least 1 draw."
            )
        self.process, self.backbone, self.loss = process, backbone, loss
        self.optimizer = optimizer
        self.seed, self.validation_draws, self.recipe = seed, validation_draws, recipe or {}
        self.bound, self.bands, self.unigram = NatsPerToken(), PerBand(), UnigramEntropy(backbone.width)
        self.register_buffer("_sums", torch.zeros(2, dtype=torch.float64), persistent=False)
        self._totals: Tensor | None = None
        self._micro_batch = 0
        self.validated_at = -1
        """The global step of the last validation."""

    @property
    def training_process(self) -> Process:
        """The process whose noise this step trains on."""
        return self.process

    def forward(self, batch: Corrupted, process: Process, **reading: Any) -> Any:
        """The backbone at the asked slots of what `process` noised: logits (N K), or what a `score` makes of them."""
        at = batch.asked.flatten().nonzero().squeeze(-1)
        level = process.mask_ratio(batch.t)
        return self.backbone(batch.x_t, level, batch.clean.segment, at, soft=batch.soft, **reading)

    def corrupt(self, canvas: Canvas) -> Corrupted:
        """Fresh noise for a training batch."""
        draws = self.draws(canvas)
        return self.process.corrupt(canvas, draws.times(canvas), draws)

    def draws(self, canvas: Canvas) -> PerPlace:
        """What is drawn for a batch belongs to its rows' places in the global batch (ranks × micro-batches)."""
        rows, world = canvas.ids.shape[0], self.trainer.world_size
        first = (self._micro_batch * world + self.global_rank) * rows
        draws = PerPlace(self.seed, self.global_step, first, self.trainer.accumulate_grad_batches * world * rows)
        seed_dropout(draws.seed_of(first), canvas.ids.device)
        return draws

    def training_step(self, batch: Corrupted, batch_idx: int) -> Tensor:
        batch = batch._replace(asked=batch.asked & self.loss.counted(batch))  # what counts for nothing is not projected
        share = self.loss.share(batch)
        nats, _ = self(batch, self.training_process, score=self.scorer(batch), weight=share.weight)
        self._sums += torch.stack([nats.detach(), share.total]).double()
        self._micro_batch += 1
        return nats

    def scorer(self, batch: Corrupted) -> Score:
        """What turns the logits of the asked slots, chunk by chunk, into nats to descend on."""
        slots, process = batch.slots(), self.training_process

        def score(logits: Tensor, start: int, stop: int) -> Tensor:
            return self.loss.of_logits(logits, slots.chunk(start, stop), process)[:, None]

        return score

    def totals(self) -> Tensor:
        """Nats and divisor of the step at hand over all ranks; they meet for it once."""
        if self._totals is None:
            self._totals = self.trainer.strategy.reduce(self._sums.clone(), reduce_op="sum")
        return self._totals

    @property
    def between_steps(self) -> bool:
        """Whether no gradient is waiting for more batches of its step."""
        return self._micro_batch == 0

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Divides the gradient of the summed nats by the global divisor: the one mean.

        Backward saw sums, which Lightning divided by the number of micro-batches and DDP or FSDP by the number of
        ranks; both are undone here. So ranks and micro-batches with long answers weigh as much as their tokens do, and
        no more, and N accumulated batches have the gradient of one that is N times larger.
        """
        nats, divisor = self.totals()
        undo = self.trainer.accumulate_grad_batches * self.trainer.world_size
        scale = undo / divisor.clamp(min=1)
        parameters = (p for group in optimizer.param_groups for p in group["params"])
        if gradients := [p.grad for p in parameters if p.grad is not None]:  # a step that is skipped has none
            torch._foreach_mul_(gradients, scale.float())
        self.log("train/loss", nats / divisor.clamp(min=1), prog_bar=True)
        self._sums.zero_()
        self._totals = None
        self._micro_batch = 0

    def validation_step(self, canvas: Canvas, batch_idx: int) -> None:
        """The bound of the plain process, on noise that belongs to the documents."""
        process = self.process.plain
        bounds, places = [], []
        for draw in range(self.validation_draws):
            draws = PerDocument(self.seed, draw, self.validation_draws)
            batch = process.corrupt(canvas, draws.times(canvas), draws)
            slots = batch.slots()

            def score(logits: Tensor, start: int, stop: int) -> Float[Tensor, "n 3"]:
                chunk = slots.chunk(start, stop)  # noqa: B023, read within this turn of the loop
                correct = (process.guess(logits) == chunk.x0).float()
                nats = -process.log_truth(logits.clone(), chunk).squeeze(1)
                return torch.stack([process.nelbo_of_logits(logits, chunk), nats, correct], dim=1)

            _, values = self(batch, process, score=score)
            nelbo, nats, correct = values.unbind(1)
            bounds.append(nelbo / self.validation_draws)
            places.append(slots.at)
            wrong = slots.x_t != slots.x0
            self.bands.update(noise_share(batch)[batch.asked][wrong], nats[wrong], correct[wrong])
        self.bound.update(torch.cat(bounds), torch.cat(places), canvas)
        self.unigram.update(canvas)

    def on_validation_epoch_end(self) -> None:
        nelbo, error = self.bound.compute()
        self.log("val/nelbo", nelbo.float(), prog_bar=True)
        self.log("val/nelbo_error", error.float())
        self.log("val/ppl", nelbo.exp().float())
        self.log("val/unigram_entropy", self.unigram.compute().float())
        for name, value in self.bands.compute().items():
            self.log(f"val/{name}", value.float())
        for metric in (self.bound, self.bands, self.unigram):
            metric.reset()
        self.validated_at = self.global_step

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = self.optimizer.optimizer(self)
        schedule = self.optimizer.schedule(optimizer, self.run_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @property
    def run_steps(self) -> float:
        """Optimizer steps of the whole run; infinite for one without an end."""
        stream = getattr(self._data, "rows_per_batch", 1) is None  # Lightning's count would begin it too early
        limit = self.trainer.max_steps
        return limit if stream and limit >= 0 else self.trainer.estimated_stepping_batches

    def configure_model(self) -> None:
        """Shards layer by layer, then the whole, when the strategy is FSDP2 (it alone has a device mesh)."""
        from torch.distributed.fsdp import FSDPModule, fully_shard

        if self.device_mesh is None or isinstance(self.backbone, FSDPModule):
            return
        for part in (*self.backbone.layers, self.backbone):
            fully_shard(part, mesh=self.device_mesh["data_parallel"])

    @property
    def _data(self) -> Any:
        trainer: Any = self.trainer
        return trainer.datamodule

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["recipe"] = self.recipe
        checkpoint["rows_per_batch"] = getattr(self._data, "rows_per_batch", None)
        checkpoint["metrics"] = {name: float(value) for name, value in self.trainer.callback_metrics.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Finds the place in the epoch again when a batch has become another number of rows."""
        before, now = checkpoint.get("rows_per_batch"), getattr(self._data, "rows_per_batch", None)
        if before and now and before != now:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
            progress.update({name: batches * before // now for name, batches in progress.items()})


def seed_dropout(seed: int, device: torch.device) -> None:
    """Seeds what a network draws by itself.

    `torch.manual_seed` would seed devices of every kind. Where there are none it writes down from where it was called,
    which takes longer than to noise a batch.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
