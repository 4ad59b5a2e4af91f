"""Download what an experiment reads from the Hub, to run it without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from gotd.config.build import build
from gotd.pipeline.experiment import hub_folder
from gotd.pipeline.record import hub_models
from gotd.planning.plan import lay_out
from gotd.runs.expand import expand
from gotd.storage.hub_models import fetch_model, use_hub_folder

SCORERS = ("scorer", "second_scorer")


def fetch(overrides: Sequence[str], models: bool) -> Path:
    """Fetch the rows of an experiment, and with ``models`` every model of its cells.

    Several experiments may share the folder: a larger sample of a corpus serves a smaller one.

    Args:
        overrides: Hydra overrides, with ``experiment=…``.
        models: Whether to copy models, too.

    Returns:
        The folder, which serves a machine without a network.

    Raises:
        ValueError: If the experiment reads nothing from the Hub.
        OSError: If the Hub does not have something, or does not answer.
    """
    configs = [config for config, _ in expand(overrides)]
    config = configs[0]
    source = build(config.source)
    folder = hub_folder(config, source)
    if source.name == "hub":
        source.fetch()
    elif not models:
        raise ValueError(
            f"the source {source.name} has nothing to fetch; scale=paper reads the Hub"
        )
    if models:
        use_hub_folder(folder)
        _fetch_models(overrides, configs)
    return folder


def _fetch_models(overrides: Sequence[str], configs: Sequence[DictConfig]) -> None:
    """Copy the models in the keys of all cells, and what their scorers read."""
    cells, _, _ = lay_out(overrides)
    for model, commit in sorted(hub_models([cell.record for cell in cells]), key=str):
        fetch_model(model, commit)
    scorers = {}
    for config in configs:
        evaluation = build(config.evaluation)
        for scorer in (getattr(evaluation, role, None) for role in SCORERS):
            if hasattr(scorer, "fetch"):
                scorers[repr(scorer)] = scorer
    for scorer in scorers.values():
        scorer.fetch()
