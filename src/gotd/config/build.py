"""Objects from configuration: schemas for Hydra, and what a composed node names.

A group's schema is read off the constructor that its ``_target_`` names: the two
cannot drift apart, and a wrong field or type fails at compose, before anything runs.
"""

from __future__ import annotations

import dataclasses
import importlib
import types
import typing
from dataclasses import field
from typing import Any, Literal

from hydra.core.config_store import ConfigStore
from hydra.utils import get_class
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from gotd.config.discovery import EXTENSIBLE, options, plugins
from gotd.config.schemas import (
    CandidatesConfig,
    Config,
    ModelConfig,
    SelectorConfig,
    TransportConfig,
)

TARGETS: dict[tuple[str, str], str] = {
    ("source", "microworld"): "gotd.data.microworld.world.Microworld",
    ("source", "microworld_toxic"): "gotd.data.microworld.toxic.ToxicMicroworld",
    ("source", "folder"): "gotd.data.folder.Folder",
    ("source", "hub"): "gotd.data.hub.source.Hub",
    ("task", "task"): "gotd.data.tasks.labelled.LabelledTask",
    ("task", "zero_shot"): "gotd.data.tasks.zero_shot.ZeroShotTask",
    ("task", "toxicity"): "gotd.data.tasks.toxicity.ToxicityTask",
    ("embedder", "tfidf_svd"): "gotd.embedding.tfidf.TfidfSvdEncoder",
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
    ("target_loss", "held_out"): "gotd.evaluation.target_loss.TargetLossSettings",
    ("tracker", "wandb"): "gotd.runs.tracker.WandbTracker",
    ("tracker", "none"): "gotd.runs.tracker.NoTracker",
}
"""What Hydra builds, by (group, name); stored as the schema ``<group>/base_<name>``.

Selectors are not listed: their files in conf/selector state their classes."""


def targets() -> dict[tuple[str, str], str]:
    """Return all that Hydra builds, by (group, name): `TARGETS`, selectors, and entry points.

    Raises:
        ValueError: If an entry point is broken; names the package.
    """
    known = dict(TARGETS)
    for option in options("selector").values():
        target = (option.node.get("method") or {}).get("_target_", option.target)
        if target is not None:
            known["selector", option.name] = target
    for group in EXTENSIBLE:
        for plugin in plugins(group):
            known.setdefault((group, plugin.name), str(plugin.target))
    return known


def schema(target: str) -> type:
    """Build the typed schema of a constructor: its fields, and ``_target_``.

    Args:
        target: Dotted path of a dataclass.

    Returns:
        A dataclass that OmegaConf understands: choices become strings, tuples lists.
    """
    module, _, name = target.rpartition(".")
    constructor = getattr(importlib.import_module(module), name)
    hints = typing.get_type_hints(constructor)
    fields = [
        (item.name, _plain(hints[item.name]), _default(item))
        for item in dataclasses.fields(constructor)
        if item.init
    ]
    target_field = ("_target_", str, field(default=target))
    return dataclasses.make_dataclass(f"{name}Schema", [target_field, *fields])


def _plain(hint: Any) -> Any:
    """Return a type that OmegaConf supports: no Literal, no tuple, no nested class."""
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
    for (group, name), target in targets().items():
        store.store(group=group, name=f"base_{name}", node=schema(target))
    for group in EXTENSIBLE:
        for plugin in plugins(group):
            if plugin.path is not None:
                store.store(group=group, name=plugin.name, node=OmegaConf.load(plugin.path))
    store.store(group="transport", name="base_transport", node=TransportConfig)
    store.store(group="selector", name="base_selector", node=SelectorConfig)
    store.store(group="model", name="base_model", node=ModelConfig)
    store.store(group="candidates", name="base_candidates", node=CandidatesConfig)


def typed(node: Any) -> Any:
    """Convert a composed node to the dataclass of its schema, which validates its values."""
    return OmegaConf.to_object(node)


def build(node: Any) -> Any:
    """Build the object of a composed node, from its ``_target_`` and its fields.

    Args:
        node: A DictConfig, or ``None``.

    Returns:
        The object, with tuples for lists; ``None`` for an empty node.

    Raises:
        ValueError: If the constructor rejects a value; the message names the field.
    """
    if node is None:
        return None
    try:
        container = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ValueError(str(error).splitlines()[0]) from error
    return _construct(container)  # type: ignore[arg-type]


def _construct(container: dict[str, Any]) -> Any:
    values = {name: _value(value) for name, value in container.items() if name != "_target_"}
    constructor = get_class(container["_target_"])
    unknown = sorted(set(values) - {item.name for item in dataclasses.fields(constructor)})
    if unknown:
        raise ValueError(f"{constructor.__name__} has no field {unknown[0]!r}")
    return constructor(**values)


def _value(value: Any) -> Any:
    if isinstance(value, dict) and "_target_" in value:
        return _construct(value)
    return tuple(value) if isinstance(value, list) else value
