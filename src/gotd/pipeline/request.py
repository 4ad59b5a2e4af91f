"""What to select from user data: sources, method, encoder and chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gotd.config.schemas import Chunking
from gotd.data.chunking import Unit
from gotd.data.columns import Columns
from gotd.data.inputs import Part
from gotd.embedding.encoders import Encoder, named_encoder
from gotd.embedding.tfidf import TfidfSvdEncoder
from gotd.engine.local import THIS_PROCESS, Engine
from gotd.pipeline.replay import Replay
from gotd.pipeline.steps import pools
from gotd.pipeline.steps.left_out import LeaveOut
from gotd.selectors.bounds import Bounds
from gotd.storage.artifacts import Step
from gotd.storage.checks import check_at_least
from gotd.storage.environment import check_docstrings


@dataclass(frozen=True)
class Request:
    """What to select, for what, and how.

    Args:
        target: Parts that make up the target.
        candidates: Parts that make up the pool.
        method: The selector.
        method_name: Its name.
        encoder: How texts become vectors.
        target_columns: The columns of the target that are read.
        columns: The columns of the candidates that are read.
        unit: ``whole``: a candidate is a row as it was given; ``fixed``: rows are cut
            and joined to chunks of ``length_chars``. A target row is never cut.
        length_chars: Length of a ``fixed`` chunk, and what the encoder reads of any row.
        min_chars: Least characters of a candidate; shorter ones are left out and counted, or
            with ``fixed`` joined with the next one. 0: any.
        seed: Seed of the selection.
        leave_out: Which candidates are left out before they are scored.
        bounds: How many rows of a domain are selected.
        replay: General rows that are mixed into the output; ``None``: none.
        model: Name or folder of the language model that will be trained, for a method or an
            encoder that reads it. A method with a space of its own replaces the encoder.

    Raises:
        ValueError: If a model is needed and missing, or given and not needed.
    """

    target: Sequence[Part]
    candidates: Sequence[Part]
    method: Any
    method_name: str
    encoder: Encoder = field(default_factory=TfidfSvdEncoder)
    target_columns: Columns = field(default_factory=Columns)
    columns: Columns = field(default_factory=Columns)
    unit: Unit = "whole"
    length_chars: int = 1000
    min_chars: int = 0
    seed: int = 0
    leave_out: LeaveOut = field(default_factory=LeaveOut)
    bounds: Bounds = field(default_factory=Bounds)
    replay: Replay | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        if self.leave_out.where is not None and self.unit != "whole":
            raise ValueError(
                "--where needs --unit whole: a fixed chunk is made of several rows, and has no "
                "columns of its own"
            )
        Chunking(self.unit, self.length_chars, self.min_chars)
        check_at_least(self, 0, "seed")
        if self.bounds and not callable(getattr(self.method, "scores", None)):
            raise ValueError(
                f"a bound on domains needs a method that scores every row, and {self.method_name} "
                "makes a list; use got_d, dsir, nearest or another one"
            )
        if self.method.space is not None:
            space = named_encoder(self.method.space, getattr(self.encoder, "device", "auto"))
            object.__setattr__(self, "encoder", space)
        if self.reads_model and self.model is None:
            what = self.method_name if "model" in self.method.requires else self.encoder.name
            raise ValueError(
                f"{what} reads the language model that you will train: give --model, its name or "
                "folder"
            )
        if self.model is not None:
            check_docstrings()
        if self.model is not None and not self.reads_model:
            raise ValueError(
                f"the method {self.method_name} with the encoder {self.encoder.name} reads no "
                "model; leave --model out"
            )

    @property
    def embeds(self) -> bool:
        """Return whether the method needs vectors."""
        return "embeddings" in self.method.requires

    @property
    def reads_model(self) -> bool:
        """Return whether the method, or the encoder, reads the model that will be trained."""
        own_space = self.embeds and self.encoder.model_from_step in ("base", "warmed")
        return "model" in self.method.requires or own_space


def pool_step(
    request: Request,
    side: str,
    count: Callable[[], int] | None = None,
    engine: Engine = THIS_PROCESS,
) -> Step:
    """Return the step that reads the rows of a side.

    Args:
        request: What to select.
        side: ``target`` or ``candidates``.
        count: Returns the expected rows, where they are known before.
        engine: Reads the candidates.
    """
    chunks, parts, columns = Chunking("whole"), request.target, request.target_columns
    if side == "candidates":
        chunks = Chunking(request.unit, request.length_chars, request.min_chars)
        parts, columns = request.candidates, request.columns
    return pools.pool(side, parts, chunks, columns, count, engine=engine)
