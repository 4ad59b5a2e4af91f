"""The engine that a name stands for."""

from __future__ import annotations

import os
from importlib.util import find_spec

from gotd.engine.local import Engine, LocalEngine

ENGINES = ("local", "ray")


def build_engine(
    name: str, workers: int, ray_address: str | None = None, gpus_per_worker: float = 0.0
) -> Engine:
    """Build an engine whose workers share the cores of this machine.

    Args:
        name: ``local`` or ``ray``.
        workers: Shards in flight at once.
        ray_address: Address of a Ray cluster; ``None``: the environment variable
            ``RAY_ADDRESS``, else a Ray on this machine.
        gpus_per_worker: GPUs that each embedding worker of Ray holds.

    Raises:
        ValueError: If there is no such engine, the number of workers is below 1, an
            address is given to the local engine, or Ray is not installed.
    """
    if name not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, not {name!r}")
    if name == "local":
        if ray_address:
            raise ValueError("a Ray address is for the engine ray; choose it, or drop the address")
        return LocalEngine(workers)
    if find_spec("ray") is None:
        raise ValueError("the engine ray needs the package ray: pip install 'ray>=2.50,<3'")
    from gotd.engine.ray import RayEngine

    return RayEngine(workers, ray_address, gpus_per_worker=gpus_per_worker)


def share_cores(workers: int) -> None:
    """Divide the threads of numerical libraries among the local workers."""
    if workers > 1:
        import torch

        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
