"""How an arm of an experiment selects: pools, their embeddings, scores, the first rows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from omegaconf import DictConfig

from gotd.config.build import build, typed
from gotd.data.base import Source
from gotd.data.sizes import expected_chunks, row_tokens
from gotd.embedding.encoders import Encoder, FittedEncoder, named_encoder
from gotd.engine.build import build_engine
from gotd.pipeline.token_budget import TokenBudget
from gotd.selectors.base import FULL_POOL, FULL_TARGET
from gotd.storage.artifacts import Step
from gotd.storage.seeds import derive_seeds


def plan_selection(
    config: DictConfig,
    source: Source,
    task: Any,
    selector: Any,
    rows: Step,
    base: Step,
    evaluation: Any,
    warm_up: Any,
    tuning: Any,
) -> tuple[Step, Step]:
    """Plan the steps by which an arm selects.

    Args:
        config: A composed configuration.
        source: The source of the candidates.
        task: The task.
        selector: The selector.
        rows: Step of the task's rows.
        base: Step of the base model.
        evaluation: Has the scorer of toxicity, for a selector that reads its scores.
        warm_up: Settings of pre-fine-tuning.
        tuning: Settings of fine-tuning, for an encoder that is tuned on the target.

    Returns:
        The selection with its report, and the step whose rows are trained on: the same, or
        that of the rows alone, which all targets share, for a selector that reads no target.
    """
    from gotd.pipeline.steps import base_model_reads, pools, selections
    from gotd.pipeline.steps.toxicity import pool_toxicity

    takes_all = bool(selector.requires & {FULL_TARGET, FULL_POOL})
    budget, limit = (None, None) if takes_all else (config.budget, config.rank_rows)
    seeds = derive_seeds(config.seed)
    seed = seeds["selection"]
    engine = build_engine(config.engine, config.workers, config.ray_address)
    sides = _sides(config, source, task, selector, rows)
    encoder = named_encoder(selector.space) if selector.space else build(config.embedder)
    model = _embedding_model(config, encoder, base, rows, task, tuning, sides)
    embedded = sides | {
        f"{name}_embeddings": pools.embeddings(side, encoder, engine, model=model)
        for name, side in sides.items()
    }
    inputs = dict(embedded if "embeddings" in selector.requires else sides)
    keep = config.candidates.screen
    # Deviation D20: the paper screens for GOT-D alone; here all selectors that measure are equal.
    if keep is not None and selector.requires - {"model"} == {"embeddings"}:
        transport = config.transport
        inputs["screened"] = embedded["screened"] = selections.screened(
            embedded, keep, transport.epsilon, transport.tolerance, seed, engine
        )
    if "scores" in selector.requires:
        inputs["toxicity"] = pool_toxicity(evaluation.scorer, source, sides["candidates"])
    inputs |= base_model_reads.files_of(selector, base, sides, warm_up, seeds)
    scored = selections.scored(selector, config.selector.arm, inputs, limit, seed, engine)
    tokens, gaps = None if takes_all else _tokens(config, base), source.under_covered
    selection = selections.selection(scored, selector, embedded, budget, gaps, seed, engine, tokens)
    if selector.reads_target:
        return selection, selection
    return selection, selections.selected_rows(scored, sides, budget, engine, tokens)


def _sides(
    config: DictConfig, source: Source, task: Any, selector: Any, rows: Step
) -> dict[str, Step]:
    """Return the steps ``target`` and ``candidates``."""
    from gotd.pipeline.steps import pools

    # Texts to move away from, where there are any.
    away = getattr(selector, "direction", "towards") == "away"
    side = "negative" if away and "negative" in task.table_names else "train"
    chunks, limits = typed(config.target_chunks), typed(config.limits)
    target = pools.target(rows, chunks, limits, config.protocol_name, side)
    if FULL_TARGET in selector.requires:
        return {"target": target, "candidates": target}
    parts, chunking = source.candidates(), typed(config.candidate_chunks)
    count, tokens = partial(expected_chunks, source, chunking), row_tokens(source, chunking)
    candidates = pools.pool("candidates", parts, chunking, count=count, tokens=tokens)
    return {"target": target, "candidates": candidates}


def _tokens(config: DictConfig, base: Step) -> TokenBudget | None:
    """Return what counts the tokens of the budget; ``None`` for a budget in rows."""
    if config.budget_unit != "tokens":
        return None
    return TokenBudget(config.budget, config.rank_rows, base, config.budget_tokenizer)


def _embedding_model(
    config: DictConfig,
    encoder: Encoder,
    base: Step,
    rows: Step,
    task: Any,
    settings: Any,
    sides: Mapping[str, Step],
) -> Step | None:
    """Return the step whose model embeds, if any: see `Encoder.model_from_step`."""
    from gotd.pipeline.steps import base_model_reads, models, pools

    if isinstance(encoder, FittedEncoder):
        return pools.fitted_encoder(encoder, sides)
    if encoder.model_from_step == "tuned":
        seeds = derive_seeds(config.seed)
        return models.tuned_encoder(config.embedder.model, rows, task, settings, seeds)
    return base_model_reads.model_of(encoder, base, sides["candidates"])
