"""Download what an experiment reads from the Hub, to run it without a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gotd.config.build import build
from gotd.pipeline.experiment import hub_folder
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
    config = expand(overrides)[0][0]
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
        _fetch_models(overrides)
    return folder


def _fetch_models(overrides: Sequence[str]) -> None:
    """Copy the models in the keys of all cells, and what their scorers read."""
    cells, _, _ = lay_out(overrides)
    steps = {step.key: step for cell in cells for step in cell.record.ancestors()}
    named = {one for step in steps.values() for one in _hub_models(step.parameters)}
    for model, commit in sorted(named, key=str):
        fetch_model(model, commit)
    scorers = {}
    for config, _ in expand(overrides):
        evaluation = build(config.evaluation)
        for scorer in (getattr(evaluation, role, None) for role in SCORERS):
            if hasattr(scorer, "fetch"):
                scorers[repr(scorer)] = scorer
    for scorer in scorers.values():
        scorer.fetch()


def _hub_models(value: Any) -> Iterator[tuple[str, str | None]]:
    """Yield name and commit of each model that a key names (`model_identity`)."""
    if isinstance(value, Mapping):
        if value.keys() == {"hub", "revision"}:
            yield value["hub"], value["revision"]
        else:
            for one in value.values():
                yield from _hub_models(one)
