"""Train on several devices of this machine: one process each, for the training steps alone.

The pipeline runs in one process, which holds the lock of the artifact. The processes end
with the one that started them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_fabric.plugins.environments.lightning import find_free_network_port
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import distributed, nn
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import spawn

from gotd.training.tracking import current_logger, log_loss

REPORT = "report.json"
FORWARD_EVERY_S = 0.5
"""Seconds between two looks at the losses that the processes send."""
PROGRESS_BAR_STEPS = 200
"""Shorter runs are over before a progress bar is useful."""

Train = Callable[..., dict[str, Any]]


def process_rank() -> tuple[int, int]:
    """Return this process's number and how many train together; (0, 1) alone."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def choose_strategy(strategy: str, network: nn.Module) -> str | ModelParallelStrategy:
    """Return Lightning's strategy for the processes of this run.

    Raises:
        ValueError: If ``fsdp`` has one process only, or the network has weights of two
            types, which one shard cannot hold.
    """
    _, processes = process_rank()
    if strategy == "ddp":
        # The encoder is unused while only the head is trained.
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


def lightning_trainer(steps: int, device: str, strategy: str, network: nn.Module) -> Trainer:
    """Return a Trainer that only runs the loop: no folders, loggers or sanity checks."""
    show_bar = steps >= PROGRESS_BAR_STEPS and sys.stdout.isatty()
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    _, processes = process_rank()
    return Trainer(
        accelerator=device,
        devices=devices,
        num_nodes=max(1, processes // devices),
        strategy=choose_strategy(strategy, network),
        max_epochs=1,
        callbacks=[RichProgressBar()] if show_bar else [],
        enable_progress_bar=show_bar,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def on_devices(devices: int, work: Path, train: Train, *arguments: Any) -> dict[str, Any]:
    """Run ``train(*arguments)`` in one process per device; the processes share each step.

    Args:
        devices: Number of processes.
        work: Folder for the report of the first process.
        train: Module-level function that trains and returns its JSON-able report.
        arguments: Picklable arguments of ``train``.

    Returns:
        The report of the first process.

    Raises:
        ProcessRaisedException: If a process failed; it holds that process's own error.
    """
    work.mkdir(parents=True, exist_ok=True)
    report = work / REPORT
    losses = get_context("spawn").SimpleQueue()
    given = (devices, find_free_network_port(), losses, report, train, arguments)
    processes: Any = spawn(_work, given, nprocs=devices, join=False)
    finished = False
    while not finished:
        finished = processes.join(timeout=FORWARD_EVERY_S)
        while not losses.empty():
            log_loss(*losses.get())
    return json.loads(report.read_text(encoding="utf-8"))


def _work(
    rank: int,
    processes: int,
    port: int,
    losses: Any,
    report: Path,
    train: Train,
    arguments: tuple[Any, ...],
) -> None:
    """Run one of the processes, with the environment that torchrun would set."""
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        NODE_RANK="0",
        WORLD_SIZE=str(processes),
        LOCAL_WORLD_SIZE=str(processes),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    # Points go to the process that started this one.
    current_logger.set(lambda step, values: losses.put((step, dict(values))))
    result = train(*arguments)
    if rank == 0:
        report.write_text(json.dumps(result), encoding="utf-8")
    if distributed.is_initialized():
        # A thread of the group that still runs when the interpreter ends aborts the process.
        distributed.barrier()
        distributed.destroy_process_group()
