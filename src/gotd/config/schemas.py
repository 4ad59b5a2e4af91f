"""Typed schemas of the conf groups that are no single constructor's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import II, MISSING

from gotd.storage.checks import check_at_least, check_at_most, check_choice
from gotd.storage.keys import added_later

MOST_CHARS = 2**31 - 1
"""Longest text that a column of Arrow can cut."""


@dataclass
class Chunking:
    """How documents become chunks (paper App. C: pieces of 1,000 characters)."""

    unit: str = "fixed"
    """``fixed``: short texts joined, long ones split; ``whole``: one chunk per text."""
    length_chars: int = 1000
    """Length of a fixed chunk in characters."""
    min_chars: int = added_later(0)
    """Least characters of a chunk; 0: any. Shorter texts are joined with the next one
    (``fixed``), or else left out and counted."""

    def __post_init__(self) -> None:
        """Validate the chunking options."""
        check_choice(self, "unit", ("fixed", "whole"), "chunks ")
        check_at_least(self, 1, "length_chars", prefix="chunks ")
        check_at_least(self, 0, "min_chars", prefix="chunks ")
        check_at_most(self, MOST_CHARS, "length_chars", "min_chars", prefix="chunks ")
        if self.unit == "fixed" and self.min_chars > self.length_chars:
            raise ValueError(
                f"chunks min_chars {self.min_chars} is more than length_chars {self.length_chars}; "
                "lower it"
            )


@dataclass
class TransportConfig:
    """conf/transport: the optimal-transport problem behind GOT-D."""

    solver: str = "semidual"
    epsilon: float = 0.05
    """Entropic regularisation, in the unit of ``epsilon_is``."""
    epsilon_is: str = "relative"
    """``relative`` to the mean cost, or ``absolute``."""
    tolerance: float = 5e-3
    """L1 error of the target marginal at which the solve counts as converged."""
    max_passes: int = 10
    """Passes over all candidates before the solve gives up."""
    reference_rows: int | None = None
    """Candidates held in memory during the fit; null: about ten per target."""
    on_failure: str = "raise"
    """``raise`` or ``warn`` when the tolerance is missed."""
    cost: str = "squared_euclidean"
    """``squared_euclidean`` or ``cosine``."""


@dataclass
class DsirConfig:
    """What an experiment sets for DSIR, whose texts it knows; see `gotd.selectors.dsir.DSIR`."""

    target_smoothing: float = 0.0
    """Count added to every bucket of the target."""
    quality_filter: str = "none"
    """Published filter: ``none``, ``paper`` or ``package``."""


@dataclass
class SelectorConfig:
    """conf/selector: an arm of the comparison."""

    arm: str = MISSING
    """Name in the tables."""
    about: Any = None
    """How the arm is shown: see `gotd.selectors.registry.Entry`. In no key and no record."""
    method: Any = None
    """The selector; null for the arm without pre-fine-tuning."""


@dataclass
class ModelConfig:
    """conf/model: the base model, from which every arm starts."""

    name: str = MISSING
    spec: Any = MISSING
    pretraining: Any = None
    """Settings of the cached step that trains the base; null: as published."""
    pretraining_rows: int | None = None
    """Rows of the source's pre-training text to use; null: all."""
    seed: int = 0
    """Seed of the base model; one base for all seeds, but one per generated world."""
    mnli_start: str | None = None
    """Model from which RTE and MRPC start under ``protocol=published``, budget 50,000."""
    mnli_start_revision: str | None = None
    """Its revision on the Hub."""


@dataclass
class TaskLimits:
    """Which labelled rows the fine-tuning sees."""

    labels: int | None = None
    """The most labelled rows (the paper: all, or 5,000)."""
    labels_chosen: str = "random"
    """``random`` by row id, or ``first`` (what the published code does)."""
    validation_rows: int | None = 100
    """Rows on which the epoch is chosen: held out of train under ``protocol=clean``, or the
    most of the split that the task has for this (null: all of it)."""
    target_rows: int | None = None
    """Training texts that form the selection target; null: all that are labelled."""
    reported_rows: int | None = added_later(None)
    """The most rows of each reported split, sampled by a hash of their ids; null: all."""

    def __post_init__(self) -> None:
        """Validate the limits."""
        check_choice(self, "labels_chosen", ("random", "first"), "limits ")
        counts = ("labels", "validation_rows", "target_rows", "reported_rows")
        check_at_least(self, 1, *counts, prefix="limits ")


@dataclass
class CandidatesConfig:
    """conf/candidates: which corpora make up the pool."""

    files: list[str] = field(default_factory=list)
    """File names or patterns inside the folder; empty: all."""
    limit: int | None = None
    """Rows to sample, by a hash of their ids; null: all."""
    screen: int | None = None
    """Domains that selectors with embeddings see: the nearest to the target by transport
    distance (paper, App. C.3: 2); null: all."""

    def __post_init__(self) -> None:
        """Validate the screening."""
        check_at_least(self, 1, "screen", prefix="candidates ")


@dataclass
class Config:
    """The root of the configuration: one cell of an experiment."""

    experiment_name: str = MISSING
    scale_name: str = MISSING
    protocol_name: str = MISSING
    """``clean`` (default), or ``published``: what the paper's code does, D1, D2, …"""
    budget: int = MISSING
    """How much to select, in ``budget_unit``."""
    budget_unit: str = "rows"
    """``rows``; ``permille``: thousandths of the pool, also of ``rank_rows``; or ``tokens``: rows
    in rank order until their tokens reach the budget."""
    budget_tokenizer: str | None = None
    """Model whose tokenizer counts the tokens: a folder, a Hub name or ``minilm``; null: the
    base model's own."""
    rank_rows: int = II("budget")
    """Rows to rank, so that every smaller budget is a prefix of one ranking."""
    seed: int = 0
    """Seed of every role; in the generated benchmark it is the world."""
    source: Any = MISSING
    task: Any = MISSING
    candidates: CandidatesConfig = field(default_factory=CandidatesConfig)
    limits: TaskLimits = field(default_factory=TaskLimits)
    candidate_chunks: Chunking = field(default_factory=Chunking)
    target_chunks: Chunking = field(default_factory=Chunking)
    embedder: Any = MISSING
    transport: TransportConfig = MISSING
    dsir: DsirConfig = field(default_factory=DsirConfig)
    selector: SelectorConfig = MISSING
    model: ModelConfig = MISSING
    pre_fine_tune: Any = MISSING
    fine_tune: Any = MISSING
    evaluation: Any = MISSING
    target_loss: Any = None
    """Loss on held-out texts of the target, before and after pre-fine-tuning; null: none."""
    tracker: Any = MISSING
    per_task: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Values that depend on the task, by setting and task, for interpolations."""
    store: str = "artifacts"
    """Folder of the artifacts; not part of any key."""
    engine: str = "local"
    """``local`` or ``ray``: where the steps of a selection run; not part of any key."""
    ray_address: str | None = None
    """Address of a Ray cluster; null: the variable ``RAY_ADDRESS``, else this machine."""
    workers: int = 1
    """Shards in flight at once; not part of any key."""
    threads: int | None = None
    """Threads of each process; null: as many as there are cores. Not part of any key."""


PROTOCOLS = ("clean", "published")
