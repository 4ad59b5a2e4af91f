"""A budget in thousandths of the pool, turned into rows before anything is planned."""

from __future__ import annotations

from omegaconf import DictConfig

from gotd.data.base import Source


def in_rows(config: DictConfig, source: Source) -> DictConfig:
    """Return the configuration with budget and ranked rows in rows, where they are thousandths.

    Args:
        config: A composed configuration.
        source: Counts the candidates.

    Raises:
        ValueError: If the budget is more than the pool, or the source does not know how many
            candidates it has.
    """
    if config.budget_unit != "permille":
        return config
    if config.budget > 1000:
        raise ValueError(f"a budget of {config.budget} thousandths is more than the pool; lower it")
    pool = source.count("candidates")
    if pool is None:
        raise ValueError(
            f"budget_unit=permille: source={source.name} does not know its number of candidates; "
            "give the budget in rows"
        )
    config = config.copy()
    # Before the budget, to which it may be bound.
    config.rank_rows = max(1, round(pool * config.rank_rows / 1000))
    config.budget = max(1, round(pool * config.budget / 1000))
    return config
