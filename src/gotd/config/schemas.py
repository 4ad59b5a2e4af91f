"""Typed schemas of every conf group, so that a typo fails at compose.

A group's schema is read off the constructor that its ``_target_`` names: the two
cannot drift apart, and a wrong field or type is refused before anything runs.
"""

from __future__ import annotations

import dataclasses
import importlib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hydra.core.config_store import ConfigStore
from hydra.utils import get_class
from omegaconf import II, MISSING, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from gotd.storage.keys import added_later

TARGETS: dict[tuple[str, str], str] = {
    ("source", "microworld"): "gotd.data.microworld.world.Microworld",
    ("source", "microworld_toxic"): "gotd.data.microworld.toxic.ToxicMicroworld",
    ("source", "folder"): "gotd.data.folder.Folder",
    ("source", "hub"): "gotd.data.hub.source.Hub",
    ("task", "task"): "gotd.data.tasks.labelled.Task",
    ("task", "zero_shot"): "gotd.data.tasks.zero_shot.ZeroShotTask",
    ("task", "toxicity"): "gotd.data.tasks.toxicity.ToxicityTask",
    ("selector", "random"): "gotd.selectors.random.Random",
    ("selector", "random_in_domain"): "gotd.selectors.random.RandomInDomain",
    ("selector", "all_domains"): "gotd.selectors.random.AllDomains",
    ("selector", "nearest"): "gotd.selectors.nearest.Nearest",
    ("selector", "dsir"): "gotd.selectors.dsir.DSIR",
    ("selector", "curated_tapt"): "gotd.selectors.curated_tapt.CuratedTAPT",
    ("selector", "round_robin"): "gotd.selectors.round_robin.RoundRobin",
    ("selector", "tsds"): "gotd.selectors.tsds.TSDS",
    ("selector", "oracle"): "gotd.selectors.oracle.Oracle",
    ("selector", "least_toxic"): "gotd.selectors.least_toxic.LeastToxic",
    ("selector", "target_itself"): "gotd.selectors.target_itself.TargetItself",
    ("selector", "got_d"): "gotd.selectors.got_d.GotD",
    ("selector", "got_d_path"): "gotd.selectors.got_d_path.GotDPath",
    ("selector", "got_d_clusters"): "gotd.selectors.got_d_clusters.GotDClusters",
    ("embedder", "hashed"): "gotd.embedding.embedders.HashedEmbedder",
    ("embedder", "transformer"): "gotd.embedding.encoders.TransformerEncoder",
    ("model", "spec"): "gotd.training.models.ModelSpec",
    ("model", "causal_spec"): "gotd.training.causal_models.CausalSpec",
    ("pre_fine_tune", "causal_lm"): "gotd.training.causal_lm.CausalLMSettings",
    ("pre_fine_tune", "masked_lm"): "gotd.training.masked_lm.MaskedLMSettings",
    ("fine_tune", "classifier"): "gotd.training.classifier.FineTuneSettings",
    ("evaluation", "fine_tuned"): "gotd.evaluation.fine_tuned.FineTuned",
    ("evaluation", "zero_shot"): "gotd.evaluation.zero_shot.ZeroShot",
    ("evaluation", "toxicity"): "gotd.evaluation.toxicity.Toxicity",
    ("evaluation", "generation"): "gotd.evaluation.generation.GenerationSettings",
    ("evaluation", "perplexity"): "gotd.evaluation.perplexity.PerplexitySettings",
    ("evaluation", "utility"): "gotd.evaluation.utility.UtilitySettings",
    ("scorer", "trained"): "gotd.training.scorer.TrainedScorer",
    ("scorer", "training"): "gotd.training.scorer.ScorerSettings",
    ("scorer", "detoxify"): "gotd.evaluation.scorers.detoxify.DetoxifyScorer",
    ("scorer", "classifier"): "gotd.evaluation.scorers.classifier.ClassifierScorer",
    ("scorer", "perspective"): "gotd.evaluation.scorers.perspective.PerspectiveScorer",
    ("tracker", "wandb"): "gotd.runs.tracker.WandbTracker",
    ("tracker", "none"): "gotd.runs.tracker.NoTracker",
}
"""What Hydra builds, by (group, name): stored as the schema ``<group>/base_<name>``."""


def _choose(name: str, value: str, choices: tuple[str, ...]) -> None:
    # While Hydra composes, a schema is made before its values are known.
    if value not in (*choices, MISSING):
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


def _at_least(name: str, value: int | None, least: int = 1) -> None:
    if value is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")


@dataclass
class Chunking:
    """How documents become chunks (paper App. C: pieces of 1,000 characters)."""

    unit: str = "fixed"
    """``fixed``: short texts joined, long ones split; ``whole``: a text is a chunk."""
    length_chars: int = 1000
    """Length of a fixed chunk in characters."""

    def __post_init__(self) -> None:
        """Refuse what no text can be cut by."""
        _choose("chunks unit", self.unit, ("fixed", "whole"))
        _at_least("chunks length_chars", self.length_chars)


@dataclass
class TransportConfig:
    """conf/transport: the optimal-transport problem behind GOT-D."""

    solver: str = "semidual"
    epsilon: float = 0.05
    """Entropic regularisation, in the unit that ``epsilon_is`` names."""
    epsilon_is: str = "relative"
    """``relative`` to the mean cost, or ``absolute``."""
    tolerance: float = 5e-3
    """L1 error of the target marginal at which the solve counts as converged."""
    max_passes: int = 10
    """Passes over all candidates before the solve gives up."""
    reference_rows: int | None = None
    """Candidates in the resident sample; null: about ten for each target."""
    on_failure: str = "raise"
    """``raise`` when the tolerance is missed, or ``warn`` and go on."""
    cost: str = "squared_euclidean"
    """``squared_euclidean`` or ``cosine``."""


@dataclass
class SelectorConfig:
    """conf/selector: an arm of the comparison."""

    arm: str = MISSING
    """Name in the tables."""
    method: Any = None
    """What ranks the candidates; null for the arm without pre-fine-tuning."""


@dataclass
class ModelConfig:
    """conf/model: where the base model comes from; every arm starts from it."""

    name: str = MISSING
    spec: Any = MISSING
    pretraining: Any = None
    """Settings of the cached step that trains the base; null: as published."""
    pretraining_rows: int | None = None
    """Rows of the source's pre-training text to use; null: all."""
    seed: int = 0
    """Seed of the base model's own making; one base for all seeds, but one per world."""
    mnli_start: str | None = None
    """Where RTE and MRPC start under ``protocol=published`` with a budget of 50,000."""
    mnli_start_revision: str | None = None
    """Its revision on the Hub."""


@dataclass
class TaskLimits:
    """Which labelled rows the fine-tuning sees."""

    labels: int | None = None
    """At most so many labelled rows (the paper: all, or 5,000)."""
    labels_chosen: str = "random"
    """``random`` by row id, or ``first`` (what the published code does)."""
    validation_rows: int | None = 100
    """Rows to choose the epoch on: held out of train under ``protocol=clean``, or at most so
    many of a split that the task has for it (null: all of that)."""
    target_rows: int | None = None
    """Training texts that form the selection target; null: all that are labelled."""
    reported_rows: int | None = added_later(None)
    """At most so many rows of each reported split, by a hash of their ids; null: all."""

    def __post_init__(self) -> None:
        """Refuse limits that leave nothing."""
        _choose("limits labels_chosen", self.labels_chosen, ("random", "first"))
        for name in ("labels", "validation_rows", "target_rows", "reported_rows"):
            _at_least(f"limits {name}", getattr(self, name))


@dataclass
class CandidatesConfig:
    """conf/candidates: which corpora make up the pool."""

    files: list[str] = field(default_factory=list)
    """File names or patterns inside the folder; empty: all."""
    limit: int | None = None
    """Sample so many rows by a hash of their ids; null: all."""
    screen: int | None = None
    """Arms that measure distances see only so many domains, the nearest to the target by
    transport distance (paper, App. C.3: 2); null: all."""

    def __post_init__(self) -> None:
        """Refuse a pool without a domain."""
        _at_least("candidates screen", self.screen)


@dataclass
class Config:
    """The root: what one cell of an experiment is made of."""

    experiment_name: str = MISSING
    scale_name: str = MISSING
    protocol_name: str = MISSING
    """``clean`` (default), or ``published``: what the paper's code does, D1, D2, …"""
    budget: int = MISSING
    """Candidates to select, in rows."""
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
    selector: SelectorConfig = MISSING
    model: ModelConfig = MISSING
    pre_fine_tune: Any = MISSING
    fine_tune: Any = MISSING
    evaluation: Any = MISSING
    tracker: Any = MISSING
    per_task: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Values that depend on the task, by setting and task, for others to refer to."""
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


def conf_folder() -> Path:
    """Give the folder of the shipped configuration: the checkout's, else the wheel's."""
    package = Path(__file__).resolve().parents[1]
    packed = package / "conf"
    return packed if packed.is_dir() else package.parents[1] / "conf"


def schema(target: str) -> type:
    """Make the typed schema of a constructor: its fields, and ``_target_``.

    Args:
        target: Dotted path of a dataclass.

    Returns:
        A dataclass that OmegaConf understands: choices become strings, tuples lists.
    """
    module, _, name = target.rpartition(".")
    constructor = getattr(importlib.import_module(module), name)
    hints = typing.get_type_hints(constructor)
    fields: list[tuple[str, Any, Any]] = [("_target_", str, field(default=target))]
    for item in dataclasses.fields(constructor):
        if not item.init:
            continue
        fields.append((item.name, _plain(hints[item.name]), _default(item)))
    return dataclasses.make_dataclass(f"{name}Schema", fields)


def _plain(hint: Any) -> Any:
    """Say a type in the words OmegaConf has: no Literal, no tuple, no nested class."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return type(arguments[0])
    if origin in (tuple, list):
        return list[_plain(arguments[0]) if arguments else Any]  # type: ignore[misc]
    if origin is dict:
        return dict[str, _plain(arguments[1])]  # type: ignore[misc]
    if origin in (types.UnionType, typing.Union):
        inner = [_plain(a) for a in arguments if a is not type(None)]
        return typing.Optional[inner[0]] if len(inner) == 1 else Any  # noqa: UP045
    return hint if hint in (str, int, float, bool) else Any


def _default(item: dataclasses.Field[Any]) -> Any:
    if item.default_factory is not dataclasses.MISSING:
        return field(default_factory=item.default_factory)
    if item.default is dataclasses.MISSING:
        return field(default=MISSING)
    if isinstance(item.default, tuple):
        values = list(item.default)
        return field(default_factory=lambda: list(values))
    if dataclasses.is_dataclass(item.default):
        return field(default=None)
    return field(default=item.default)


def register() -> None:
    """Store every schema in Hydra's ConfigStore; safe to call again."""
    store = ConfigStore.instance()
    store.store(name="base_config", node=Config)
    for (group, name), target in TARGETS.items():
        store.store(group=group, name=f"base_{name}", node=schema(target))
    store.store(group="transport", name="base_transport", node=TransportConfig)
    store.store(group="selector", name="base_selector", node=SelectorConfig)
    store.store(group="model", name="base_model", node=ModelConfig)
    store.store(group="candidates", name="base_candidates", node=CandidatesConfig)


def typed(node: Any) -> Any:
    """Turn a composed node into the dataclass of its schema, which checks its values."""
    return OmegaConf.to_object(node)


def build(node: Any) -> Any:
    """Build what a composed node names, from its ``_target_`` and its fields.

    Args:
        node: A DictConfig, or ``None``.

    Returns:
        The object, lists given as tuples; ``None`` for an empty node.

    Raises:
        ValueError: If the constructor refuses a value; the message names the field.
    """
    if node is None:
        return None
    try:
        container = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ValueError(str(error).splitlines()[0]) from error
    return _construct(dict(container))  # type: ignore[arg-type]


def _construct(container: dict[Any, Any]) -> Any:
    values = {str(name): value for name, value in container.items()}
    constructor = get_class(str(values.pop("_target_")))
    unknown = sorted(set(values) - {item.name for item in dataclasses.fields(constructor)})
    if unknown:
        raise ValueError(f"{constructor.__name__} has no field {unknown[0]!r}")
    return constructor(**{name: _value(value) for name, value in values.items()})


def _value(value: Any) -> Any:
    if isinstance(value, dict) and "_target_" in value:
        return _construct(value)
    return tuple(value) if isinstance(value, list) else value
