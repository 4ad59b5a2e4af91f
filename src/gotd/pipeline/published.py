"""What ``protocol=published`` changes in a configuration: the settings of the published code."""

from __future__ import annotations

from omegaconf import DictConfig

from gotd.config.build import build


def as_published(config: DictConfig) -> DictConfig:
    """Return the configuration with the settings of the published code, for protocol=published."""
    if config.protocol_name != "published":
        return config
    config = config.copy()
    # Deviation D2. Of a space that no layer makes (token_mean) nothing was published.
    if config.embedder.get("pooling") == "mean_masked":
        config.embedder.pooling = "mean_all_positions"
    for side in ("candidate_chunks", "target_chunks"):
        config[side].min_chars = 0  # Deviation D29
    config.dsir.target_smoothing = 0.0  # Deviation D30
    # Deviation D9 is GLUE's: with a split to choose on, the published code chooses (D19).
    kept = {"choose"} if config.task.get("choice_split") is not None else set()
    for group in ("pre_fine_tune", "fine_tune", "evaluation"):
        for name, value in getattr(build(config[group]), "published", {}).items():
            if name not in kept:
                config[group][name] = value
    return config


def starts_from_mnli(config: DictConfig, task: str) -> bool:
    """Return whether the published code starts from a model tuned on MNLI."""
    # Deviation D3: `if data_size == 50000 and task in (rte, mrpc)`; the vanilla arm keeps BERT.
    return (
        config.protocol_name == "published"
        and config.model.mnli_start is not None
        and task in ("rte", "mrpc")
        and config.budget == 50_000
    )
