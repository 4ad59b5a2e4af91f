"""The steps of the protocol as stages: what each reads, what decides its bytes.

Nothing runs here. Each function gives a `Stage` whose ``build`` calls one room, so
keys are known before any work is done; `protocol` strings them together.
"""

from gotd.stages.identity import RUN_ONLY, identity
from gotd.stages.measures import measured
from gotd.stages.models import (
    base_model,
    embeddings,
    pre_fine_tuned,
    tuned_encoder,
)
from gotd.stages.rows import candidates, target, task_rows
from gotd.stages.selections import ranking, screened, selection
from gotd.stages.toxicity import pool_scores

__all__ = [
    "RUN_ONLY",
    "base_model",
    "candidates",
    "embeddings",
    "identity",
    "measured",
    "pool_scores",
    "pre_fine_tuned",
    "ranking",
    "screened",
    "selection",
    "target",
    "task_rows",
    "tuned_encoder",
]
