"""Run optimiser steps: one loop for every objective, resumable after any step.

A step is a function of the weights, the optimiser's moments and (seed, step): order,
masks and dropout are re-seeded at every step instead of carried along. So a killed
run that starts again reaches the same bytes, which Lightning alone does not promise.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from transformers.modeling_layers import GradientCheckpointingLayer

from gotd.storage.files import rename_durably
from gotd.training.data import Batch, BatchStream, Part
from gotd.training.randomness import seed_for, seed_generators
from gotd.training.settings import TrainingSettings

log = logging.getLogger(__name__)

CHECKPOINT_FILE = "last.ckpt"
CURVE_POINTS = 100
"""Loss curves are averaged over windows so that they have about this many points."""
PROGRESS_BAR_STEPS = 200
"""Shorter runs are over before a progress bar is drawn."""
PROGRESS_LINE_S = 60
"""Seconds between two lines that say where a run without a bar stands."""
BF16_HIDDEN_SIZE = 256
"""Below this width casting costs more than the faster multiplication saves."""


@dataclass(frozen=True)
class Cost:
    """What a run took; not reproducible, so it stays apart from the results."""

    elapsed_s: float
    tokens_per_s: float
    resumed: bool
    device: str
    precision: str


class StepModule(pl.LightningModule):
    """Take optimiser steps on batches; subclasses say what the loss is.

    A Lightning batch is a whole optimiser step, so optimisation is manual: the parts
    of a :class:`Batch` are summed and divided by the terms of the whole step, which
    makes the update independent of how the step was cut.

    Args:
        network: The trained network, adapters included.
        settings: See :class:`TrainingSettings`.
        seed: Seed of dropout.
        identity: Hash of everything that decides the result; a checkpoint of another
            run is refused.
    """

    def __init__(
        self, network: nn.Module, settings: TrainingSettings, seed: int, identity: str
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network: Any = network
        self.settings = settings
        self.seed = seed
        self.identity = identity
        self.step = 0
        self.total_steps = 0
        self.curve: list[list[float]] = []
        self.work = Path()
        self.precision = "float32"
        self.gathered: dict[str, Tensor] = {}
        """All trained weights, where they were sharded; empty on other devices."""
        self._window = torch.zeros((), dtype=torch.float64)
        self._window_steps = 0
        self._said_at, self._said_step = time.monotonic(), 0

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
        """Change gradients just before the update of ``step``."""

    def after_update(self, step: int) -> None:
        """Look at the network after ``step`` steps, for instance to validate."""

    def configure_model(self) -> None:
        """Rows weights, gradients and moments layer by layer, if that is how devices share."""
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

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Move a batch; Lightning asks because it does not know the type."""
        return batch.to(device)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Take one optimiser step."""
        seed_generators(seed_for(self.seed, "dropout", self.step, self.global_rank))
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
        if self.settings.gradient_clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.gradient_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self._window = self._window.to(self.device) + loss.double()
        self._window_steps += 1

    def on_train_end(self) -> None:
        """Gather weights that are spread over devices, while those still run together."""
        if self.settings.strategy == "fsdp":
            whole = self.trainer.strategy.lightning_module_state_dict()
            self.gathered = {key.removeprefix("network."): w for key, w in whole.items()}

    def _sum_or_zero(self, part: Part) -> Tensor:
        """Return the part's loss; without rows a zero that every weight takes part in.

        A device that ran out of rows must still meet the others in the backward pass, and
        in the forward pass, too, where each holds a share of every layer.
        """
        if len(part["input_ids"]):
            return self.sum_losses(part)
        if self.settings.strategy == "fsdp":
            return self.sum_losses({k: v.new_ones((1, 2)) for k, v in part.items()}) * 0
        zeros = [weight.sum() * 0 for weight in self.network.parameters() if weight.requires_grad]
        return torch.stack(zeros).sum()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Close the step: curve, validation, checkpoint, in this order."""
        self.step += 1
        width = max(1, self.total_steps // CURVE_POINTS)
        if self.step % width == 0 or self.step == self.total_steps:
            self._close_window()
        self.after_update(self.step)
        self._say_where()
        if self.step % self.settings.checkpoint_every_steps == 0 and self.step < self.total_steps:
            save_checkpoint(self.trainer, self.work / CHECKPOINT_FILE)

    def _say_where(self) -> None:
        """Log once a minute how far the run is, unless a bar shows it."""
        since = time.monotonic() - self._said_at
        if since < PROGRESS_LINE_S or self.trainer.progress_bar_callback or self.global_rank:
            return
        left_min = since / (self.step - self._said_step) * (self.total_steps - self.step) / 60
        log.info("step %d of %d, about %.0f min left", self.step, self.total_steps, left_min)
        self._said_at, self._said_step = time.monotonic(), self.step

    def on_train_start(self) -> None:
        """Count the time of a step from here: a resumed run starts at a later one."""
        self._said_at, self._said_step = time.monotonic(), self.step

    def _close_window(self) -> None:
        """Append the mean loss since the last point to the curve."""
        total = self.trainer.strategy.reduce(self._window, reduce_op="sum")
        loss = float(total) / self._window_steps
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at step {self.step}; lower the learning rate "
                f"({self.settings.learning_rate}) or use precision=float32"
            )
        self.curve.append([self.step, loss])
        self._window, self._window_steps = torch.zeros_like(self._window), 0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning does not know of."""
        checkpoint["gotd"] = {
            "identity": self.identity,
            "step": self.step,
            "curve": self.curve,
            "window": self._window.cpu(),
            "window_steps": self._window_steps,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore it, or refuse a checkpoint of another run.

        Raises:
            ValueError: If data, seed or settings differ from the checkpoint's.
        """
        saved = checkpoint["gotd"]
        if saved["identity"] != self.identity:
            raise ValueError(
                f"{self.work / CHECKPOINT_FILE} belongs to a run with other texts, seed or "
                "settings; delete it or use another work folder"
            )
        self.step, self.curve = saved["step"], saved["curve"]
        self._window, self._window_steps = saved["window"], saved["window_steps"]


def train(module: StepModule, stream: BatchStream, work: Path) -> Cost:
    """Take the steps of ``stream`` that are not taken yet.

    On several devices every process calls this; alone it uses one.

    Args:
        module: Trained in place.
        stream: One batch per step.
        work: Holds the checkpoint, if the run is long enough to need one; removed
            by :func:`forget_checkpoint` once the result is safe.
    """
    module.total_steps, module.work = len(stream), work
    checkpoint = work / CHECKPOINT_FILE
    resumed = checkpoint.is_file()
    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    module.precision = resolve_precision(module.settings.precision, device, module.network)
    started = time.perf_counter()
    if len(stream):
        module.train()
        logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
        strategy = choose_strategy(module.settings, module.network)
        trainer = _lightning_trainer(len(stream), on_gpu, strategy)
        with warnings.catch_warnings():
            # Its notices about its own dependencies say nothing about the run.
            warnings.filterwarnings("ignore", module="pytorch_lightning")
            trainer.fit(
                module, stream, ckpt_path=str(checkpoint) if resumed else None, weights_only=True
            )
    elapsed = time.perf_counter() - started
    return Cost(elapsed, stream.tokens_here / elapsed, resumed, device, module.precision)


def process_rank() -> tuple[int, int]:
    """Return this process's number and how many train together; (0, 1) alone."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def choose_strategy(settings: TrainingSettings, network: nn.Module) -> str | ModelParallelStrategy:
    """Say how the processes of this run share the work.

    Raises:
        ValueError: If ``fsdp`` is asked for with one process, or for a network whose
            weights are of two types, which one shard cannot hold.
    """
    _, processes = process_rank()
    if settings.strategy == "ddp":
        # Unused: the encoder while only the head learns.
        return "ddp_find_unused_parameters_true" if processes > 1 else "auto"
    if processes < 2:
        raise ValueError(
            "strategy=fsdp shards over several devices: ask for devices=N, or use strategy=ddp"
        )
    if len({weight.dtype for weight in network.parameters()}) > 1:
        raise ValueError(
            "strategy=fsdp needs weights of one type: use weights=float32 with tuning=lora"
        )
    return ModelParallelStrategy(
        data_parallel_size=processes, tensor_parallel_size=1, save_distributed_checkpoint=False
    )


def _lightning_trainer(
    steps: int, on_gpu: bool, strategy: str | ModelParallelStrategy
) -> pl.Trainer:
    """Return a Trainer that only runs the loop: no folders, loggers or sanity checks."""
    show_bar = steps >= PROGRESS_BAR_STEPS and sys.stdout.isatty()
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    _, processes = process_rank()
    return pl.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=devices,
        num_nodes=max(1, processes // devices),
        strategy=strategy,
        max_epochs=1,
        callbacks=[RichProgressBar()] if show_bar else [],
        enable_progress_bar=show_bar,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def save_checkpoint(trainer: pl.Trainer, file: Path) -> None:
    """Replace ``file`` by a checkpoint of now; a kill leaves the old one or the new one."""
    part = file.with_suffix(".part")
    file.parent.mkdir(parents=True, exist_ok=True)
    trainer.save_checkpoint(part)
    if trainer.is_global_zero:
        rename_durably(part, file)


def forget_checkpoint(work: Path) -> None:
    """Remove the checkpoint of a run whose result is written."""
    (work / CHECKPOINT_FILE).unlink(missing_ok=True)


def count_steps(n_steps_per_epoch: int, epochs: float, max_steps: int | None = None) -> int:
    """Return the optimiser steps of ``epochs`` passes: 0 for none, else at least 1."""
    steps = 0 if epochs == 0 else max(1, round(epochs * n_steps_per_epoch))
    return steps if max_steps is None else min(steps, max_steps)


def linear_schedule(step: int, steps: int, warmup_share: float) -> float:
    """Rise linearly to 1 over the warm-up, then fall linearly to 0 after the last step.

    With w warm-up steps of T, ``s / w`` for s < w, else ``(T - s) / (T - w)``. The last step
    is never one of the warm-up: a single one would have the rate 0.
    """
    warmup = min(math.ceil(warmup_share * steps), steps - 1)
    if step < warmup:
        return step / warmup
    return (steps - step) / max(1, steps - warmup)


def group_parameters(
    network: nn.Module, settings: TrainingSettings, apart: Mapping[int, float] | None = None
) -> list[dict[str, Any]]:
    """Sort trainable parameters into AdamW groups.

    Args:
        network: Shared (tied) parameters are counted once.
        settings: Gives the peak rate and the decay.
        apart: Peak rates by ``id`` of parameters that get their own and no decay.

    Returns:
        Groups with ``params``, ``rate`` (peak learning rate), ``lr`` and
        ``weight_decay``; empty groups are left out.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if not parameter.requires_grad:
            continue
        rate, decay = settings.learning_rate, settings.weight_decay
        if apart and id(parameter) in apart:
            rate, decay = apart[id(parameter)], 0.0
        elif parameter.ndim < 2:
            decay = 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "rate": rate, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def resolve_precision(precision: str, device: str, network: nn.Module) -> str:
    """Decide what ``auto`` means here: ``float32`` or ``bf16``."""
    if precision != "auto":
        return precision
    width = getattr(getattr(network, "config", None), "hidden_size", 0)
    if width < BF16_HIDDEN_SIZE:
        return "float32"
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bf16" if torch.cpu.get_capabilities().get("avx512_bf16", False) else "float32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Return the context in which forward passes run; backward passes stay outside."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
