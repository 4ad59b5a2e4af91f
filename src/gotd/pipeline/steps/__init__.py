"""The steps of the protocol: what each reads and writes, and what its bytes depend on.

Nothing runs here. Each function returns a `gotd.storage.artifacts.Step`, so keys are known
before any work is done; `gotd.pipeline.experiment` and `gotd.pipeline.select` connect them.
"""

from gotd.pipeline.steps.measures import measured
from gotd.pipeline.steps.models import base_model, pre_fine_tuned, tuned_encoder
from gotd.pipeline.steps.pool import embeddings, pool, target
from gotd.pipeline.steps.rows import task_rows
from gotd.pipeline.steps.selection import scored, screened, selection
from gotd.pipeline.steps.toxicity import pool_toxicity

__all__ = [
    "base_model",
    "embeddings",
    "measured",
    "pool",
    "pool_toxicity",
    "pre_fine_tuned",
    "scored",
    "screened",
    "selection",
    "target",
    "task_rows",
    "tuned_encoder",
]
