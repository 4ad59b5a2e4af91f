"""The steps of the protocol as steps: what each reads, what decides its bytes.

Nothing runs here. Each function gives a `Step` whose ``build`` calls one room, so
keys are known before any work is done; `protocol` strings them together.
"""

from gotd.pipeline.steps.measures import measured
from gotd.pipeline.steps.models import base_model, embeddings, pre_fine_tuned, tuned_encoder
from gotd.pipeline.steps.rows import candidates, target, task_rows
from gotd.pipeline.steps.selections import ranking, screened, selection
from gotd.pipeline.steps.toxicity import pool_scores
from gotd.storage.keys import RUN_ONLY, identity

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
