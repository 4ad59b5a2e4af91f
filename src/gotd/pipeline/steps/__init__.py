"""The steps of the protocol: what each reads and writes, and what its bytes depend on.

Nothing runs here. Each function returns a `gotd.storage.artifacts.Step`, so keys are known
before any work is done; `gotd.pipeline.experiment` and `gotd.pipeline.select` connect them.
A selection needs no training code, so a step is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gotd.pipeline.steps.losses import target_loss as target_loss
    from gotd.pipeline.steps.measures import measured as measured
    from gotd.pipeline.steps.models import base_model as base_model
    from gotd.pipeline.steps.models import pre_fine_tuned as pre_fine_tuned
    from gotd.pipeline.steps.models import tuned_encoder as tuned_encoder
    from gotd.pipeline.steps.pools import embeddings as embeddings
    from gotd.pipeline.steps.pools import fitted_encoder as fitted_encoder
    from gotd.pipeline.steps.pools import pool as pool
    from gotd.pipeline.steps.pools import target as target
    from gotd.pipeline.steps.rows import task_rows as task_rows
    from gotd.pipeline.steps.selections import scored as scored
    from gotd.pipeline.steps.selections import screened as screened
    from gotd.pipeline.steps.selections import selection as selection
    from gotd.pipeline.steps.toxicity import pool_toxicity as pool_toxicity

_MODULES = {
    "measures": ("measured",),
    "models": ("base_model", "pre_fine_tuned", "tuned_encoder"),
    "pools": ("embeddings", "fitted_encoder", "pool", "target"),
    "rows": ("task_rows",),
    "selections": ("scored", "screened", "selection"),
    "losses": ("target_loss",),
    "toxicity": ("pool_toxicity",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
