"""Optimiser steps: one loop for every objective, resumable after any step.

A step is a function of the weights, the optimiser's moments and (seed, step). Order, masks
and dropout are seeded anew at every step, so a killed run that starts again reaches the same
bytes. Lightning alone does not guarantee that.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as pl
import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from transformers import PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer

from gotd.storage.files import rename_durably
from gotd.storage.seeds import derive_seed
from gotd.training.data import Batch, BatchStream, Part, TokenRows, own_parts, pad_rows
from gotd.training.devices import lightning_trainer, process_rank
from gotd.training.loading import device_of
from gotd.training.lora import merge_adapters
from gotd.training.models import save_model
from gotd.training.optimisation import (
    CLIP_NORM,
    autocast,
    group_parameters,
    linear_schedule,
    resolve_precision,
)
from gotd.training.randomness import TrainingSeeds, isolated_randomness, seed_generators
from gotd.training.settings import TrainingSettings, identity_of
from gotd.training.tracking import log_loss

log = logging.getLogger(__name__)

CHECKPOINT_FILE = "last.ckpt"
CURVE_POINTS = 100
"""Loss curves are averaged over windows so that they have about this many points."""
PROGRESS_LINE_S = 60
"""Seconds between two lines that report the progress of a run without a bar."""


class StepModule(pl.LightningModule):
    """Rows, network and loss of one training run; subclasses define them.

    A Lightning batch is a whole optimiser step, so optimisation is manual. The parts of a
    :class:`Batch` are summed and divided by the terms of the whole step, which makes the
    update independent of how the step was cut.

    Args:
        folder: Model folder of the base.
        tokenizer: Its tokenizer.
        rows: The rows to train on.
        settings: See :class:`TrainingSettings`.
        seeds: Seeds of the run.
        data: Digests of the rows. A checkpoint of other data, settings or seeds raises.
    """

    loss_name: ClassVar[str] = "loss"
    """Name of the live loss curve."""
    saved: ClassVar[tuple[str, ...]] = ("step", "curve", "window", "window_steps")
    """Attributes that checkpoints hold in addition to what Lightning saves."""

    network: Any
    """The trained network, adapters included; made by `initialise`."""

    def __init__(
        self,
        folder: Path,
        tokenizer: PreTrainedTokenizerBase,
        rows: TokenRows,
        settings: TrainingSettings,
        seeds: TrainingSeeds,
        *data: str,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.folder, self.tokenizer, self.rows = folder, tokenizer, rows
        self.settings: Any = settings
        self.seeds = seeds
        self.identity = identity_of(settings, seeds, *data)
        self.step = 0
        self.total_steps = 0
        self.curve: list[list[float]] = []
        self.work = Path()
        self.precision = "float32"
        self.gathered: dict[str, Tensor] = {}
        """All trained weights, where they were sharded; empty on other devices."""
        self.window = torch.zeros((), dtype=torch.float64)
        """Sum of the losses since the last point of the curve."""
        self.window_steps = 0

    def initialise(self) -> PeftModel | None:
        """Load the network as it is before the first step; return its adapters' handle if any."""
        seed_generators(derive_seed(self.seeds.initialisation, "fresh weights"))
        return self.load()

    def load(self) -> PeftModel | None:
        """Load the network and prepare its tuning; fresh weights come from torch's generator."""
        raise NotImplementedError

    def save(self, out: Path) -> None:
        """Write the trained network into the folder ``out``."""
        save_model(self.network, self.tokenizer, out)

    def report(self) -> dict[str, Any]:
        """Return what the report contains in addition, JSON-able."""
        return {}

    def schedule(self, steps: int) -> Sequence[int]:
        """Return per optimiser step the step of the epochs' order to take."""
        return range(steps)

    def collate(self, step: int, which: np.ndarray) -> Batch:
        """Return this device's share of ``step``, over the rows ``which``."""
        parts = own_parts(len(which), self.settings.per_device_batch_size)
        return Batch([self.pad(which[part]) for part in parts], terms=len(which))

    def pad(self, which: np.ndarray) -> Part:
        """Pad some of the rows to tensors."""
        return pad_rows(self.rows, which)

    def sum_losses(self, part: Part) -> Tensor:
        """Return the sum of the loss terms of one part."""
        raise NotImplementedError

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return AdamW's groups, each with its peak ``rate``."""
        return group_parameters(self.network, self.settings)

    def rate(self, step: int, peak: float) -> float:
        """Return the learning rate at ``step`` of a group whose peak rate is ``peak``."""
        return peak * linear_schedule(step, self.total_steps, self.settings.warmup_share)

    def before_update(self, step: int) -> None:
        """Update gradients just before the update of ``step``; by default not at all."""

    def after_update(self, step: int) -> None:
        """Evaluate the network after ``step`` steps; by default not at all."""

    def configure_model(self) -> None:
        """Distribute weights, gradients and moments layer by layer under ``strategy=fsdp``."""
        if self.settings.strategy != "fsdp":
            return
        mesh = self.device_mesh["data_parallel"]  # type: ignore[index]
        for layer in self.network.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                fully_shard(layer, mesh=mesh)
        fully_shard(self, mesh=mesh)
        register_fsdp_forward_method(self, "sum_losses")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW, fused: ten times faster than a loop over tensors on CPU."""
        return torch.optim.AdamW(
            self.parameter_groups(),
            betas=(self.settings.betas[0], self.settings.betas[1]),
            eps=self.settings.adam_epsilon,
            fused=True,
        )

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Take one optimiser step."""
        seed_generators(derive_seed(self.seeds.masking, "dropout", self.step, self.global_rank))
        optimizer: Any = self.optimizers()
        for group in optimizer.param_groups:
            group["lr"] = self.rate(self.step, group["rate"])
        loss = torch.zeros((), device=self.device)
        for part in batch.parts:
            with autocast(self.device, self.precision):
                part_loss = self._sum_or_zero(part) / batch.terms
            # Devices average their gradients; the terms already count all devices.
            self.manual_backward(part_loss * self.trainer.world_size)
            loss += part_loss.detach()
        self.before_update(self.step)
        nn.utils.clip_grad_norm_(self.network.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.window = self.window.to(self.device) + loss.double()
        self.window_steps += 1

    def on_train_end(self) -> None:
        """Gather weights that are spread over devices, while those still run together."""
        if self.settings.strategy == "fsdp":
            state = self.trainer.strategy.lightning_module_state_dict()
            self.gathered = {key.removeprefix("network."): w for key, w in state.items()}

    def _sum_or_zero(self, part: Part) -> Tensor:
        """Return the part's loss; without rows a zero that depends on every weight.

        A device without rows must still join the others in the backward pass, and under
        ``fsdp`` in the forward pass, because each device holds a share of every layer.
        """
        if len(part["input_ids"]):
            return self.sum_losses(part)
        if self.settings.strategy == "fsdp":
            return self.sum_losses({k: v.new_ones((1, 2)) for k, v in part.items()}) * 0
        zeros = [weight.sum() * 0 for weight in self.network.parameters() if weight.requires_grad]
        return torch.stack(zeros).sum()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Update curve, validation and checkpoint, in this order."""
        self.step += 1
        width = max(1, self.total_steps // CURVE_POINTS)
        if self.step % width == 0 or self.step == self.total_steps:
            self._close_window()
        self.after_update(self.step)
        self._log_progress()
        if self.step % self.settings.checkpoint_every_steps == 0 and self.step < self.total_steps:
            # A kill leaves either the old checkpoint or the new one.
            file = self.work / CHECKPOINT_FILE
            part = file.with_suffix(".part")
            self.work.mkdir(parents=True, exist_ok=True)
            self.trainer.save_checkpoint(part)
            if self.trainer.is_global_zero:
                rename_durably(part, file)

    def _log_progress(self) -> None:
        """Log once a minute how far the run is, unless a bar shows it."""
        since = time.monotonic() - self._logged_at
        if since < PROGRESS_LINE_S or self.trainer.progress_bar_callback or self.global_rank:
            return
        left_min = since / (self.step - self._logged_step) * (self.total_steps - self.step) / 60
        log.info("step %d of %d, about %.0f min left", self.step, self.total_steps, left_min)
        self._logged_at, self._logged_step = time.monotonic(), self.step

    def on_train_start(self) -> None:
        """Start the clock of a step; a resumed run starts at a later step."""
        self._logged_at, self._logged_step = time.monotonic(), self.step

    def _close_window(self) -> None:
        """Append the mean loss since the last point to the curve, and send it to the tracker."""
        total = self.trainer.strategy.reduce(self.window, reduce_op="sum")
        loss = float(total) / self.window_steps
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at step {self.step}; lower the learning rate "
                f"({self.settings.learning_rate}) or use precision=float32"
            )
        self.curve.append([self.step, loss])
        if self.global_rank == 0:
            log_loss(self.step, {self.loss_name: loss})
        self.window, self.window_steps = torch.zeros_like(self.window), 0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning does not save."""
        self.window = self.window.cpu()
        checkpoint["gotd"] = {name: getattr(self, name) for name in ("identity", *self.saved)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what was added, from a checkpoint of the same run.

        Raises:
            ValueError: If data, seed or settings differ from the checkpoint's.
        """
        saved = checkpoint["gotd"]
        if saved["identity"] != self.identity:
            raise ValueError(
                f"{self.work / CHECKPOINT_FILE} belongs to a run with other texts, seed or "
                "settings; delete it or use another work folder"
            )
        for name in self.saved:
            setattr(self, name, saved[name])


def train(module: StepModule, work: Path, out: Path) -> dict[str, Any]:
    """Train a module and write its folder ``out``.

    Called again with the same arguments after a kill, it resumes from the checkpoint in
    ``work`` and writes the same bytes. With several devices every process calls this.

    Args:
        module: What to train.
        work: Folder for the checkpoint of a long run, which is removed in the end.
        out: Folder for the network, adapters merged; they are also in ``out/adapter``.

    Returns:
        JSON-able ``loss_curve`` ([[step, mean loss]]), ``steps``, ``tokens`` read, ``seeds``,
        what the module adds and, not reproducible, ``cost``.

    Raises:
        ValueError: If the checkpoint is of another run.
        FloatingPointError: If the loss is not finite.
    """
    with isolated_randomness():
        adapted = module.initialise()
        report = _run_steps(module, work)
        if module.gathered:  # the shards that were trained are no model by themselves
            adapted = module.initialise()
            module.network.load_state_dict(module.gathered)
    if process_rank()[0] == 0:
        out.mkdir(parents=True, exist_ok=True)
        if adapted is not None:
            merge_adapters(adapted, out)
        module.save(out)
        (work / CHECKPOINT_FILE).unlink(missing_ok=True)
    return report


def _run_steps(module: StepModule, work: Path) -> dict[str, Any]:
    """Take all steps, from the checkpoint if there is one, and return the report of `train`."""
    settings = module.settings
    steps = settings.count_steps(len(module.rows))
    stream = BatchStream(
        module.rows.lengths,
        settings.global_batch_size,
        module.schedule(steps),
        module.seeds.order,
        module.collate,
    )
    module.total_steps, module.work = len(stream), work
    checkpoint = work / CHECKPOINT_FILE
    start = str(checkpoint) if checkpoint.is_file() else None
    device = device_of("auto")
    module.precision = resolve_precision(settings.precision, device, module.network)
    started = time.perf_counter()
    if len(stream):
        module.train()
        logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
        trainer = lightning_trainer(len(stream), device, settings.strategy, module.network)
        with warnings.catch_warnings():
            # Lightning's notices about its own dependencies do not concern the run.
            warnings.filterwarnings("ignore", module="pytorch_lightning")
            trainer.fit(module, stream, ckpt_path=start, weights_only=True)
    elapsed = time.perf_counter() - started
    return {
        "loss_curve": module.curve,
        "steps": steps,
        "tokens": stream.tokens,
        "seeds": asdict(module.seeds),
        **module.report(),
        "cost": {
            "elapsed_s": elapsed,
            "tokens_per_s": (stream.tokens - stream.tokens_before) / elapsed,
            "resumed": start is not None,
            "device": device,
            "precision": module.precision,
        },
    }
