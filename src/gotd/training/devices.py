"""Train on several devices of this machine: one process each, for the stage alone.

The protocol runs in one process, which holds the lock of the artifact that is made; only
the training steps are shared. The processes end with the one that started them.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch.multiprocessing.spawn import spawn

REPORT = "report.json"

PreFineTune = Callable[..., dict[str, Any]]


def on_devices(
    pre_fine_tune: PreFineTune,
    model: Path | str,
    texts: Sequence[str],
    settings: Any,
    seed: int,
    work: Path,
    out: Path,
) -> dict[str, Any]:
    """Run an objective's ``pre_fine_tune`` on ``settings.devices`` processes that share each step.

    Args:
        pre_fine_tune: Of the objective's module.
        model: As it takes it, like all that follow.
        texts: The selection.
        settings: Its settings; ``strategy`` says how the processes share the work.
        seed: Its seed.
        work: Folder for the checkpoint.
        out: Folder for the model, which the first process writes.

    Returns:
        What the first process returned.

    Raises:
        ProcessRaisedException: If a process failed; its own error stands inside.
    """
    work.mkdir(parents=True, exist_ok=True)
    arguments = (model, list(texts), settings, seed, work, out)
    count = settings.devices
    spawn(_work, (count, _free_port(), pre_fine_tune, arguments), nprocs=count, join=True)
    return json.loads((work / REPORT).read_text(encoding="utf-8"))


def _work(
    rank: int, processes: int, port: int, pre_fine_tune: PreFineTune, arguments: tuple[Any, ...]
) -> None:
    """Be one of the processes: what torchrun would say stands in the environment."""
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        NODE_RANK="0",
        WORLD_SIZE=str(processes),
        LOCAL_WORLD_SIZE=str(processes),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    report = pre_fine_tune(*arguments)
    if rank == 0:
        (arguments[-2] / REPORT).write_text(json.dumps(report), encoding="utf-8")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
