"""Steps for selectors that read the model that will be trained: its losses on the pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gotd.data.pool import open_pool
from gotd.data.sampling import SPLIT_SEED, sample_texts
from gotd.evaluation.ranges import by_range
from gotd.evaluation.target_loss import TargetLossSettings, load_losses
from gotd.pipeline.steps.models import model_shape, scoring_work, train_model, training_key
from gotd.selectors.base import FILES
from gotd.storage import progress
from gotd.storage.artifacts import WORK, Step
from gotd.storage.keys import identity
from gotd.storage.model_files import locate, model_identity
from gotd.storage.shapes import named_shape
from gotd.storage.work import Work
from gotd.training.causal_lm import CausalLMSettings
from gotd.training.causal_models import is_causal
from gotd.training.masked_lm import MaskedLMSettings
from gotd.training.models import copy_model

LOSSES = "losses.parquet"
READ_TOKENS = 256
"""Tokens that are read of a candidate."""
TUNING: dict[str, Any] = {
    "learning_rate": 5e-5,
    "epochs": 3,
    "global_batch_size": 16,
    "per_device_batch_size": 16,
    "warmup_share": 0.1,
}
"""Training on the target's texts in ``gotd select``; an experiment has settings of its own."""


def named_model(model: str) -> Step:
    """Copy a model of a folder or the Hub, with its tokenizer."""

    def build(folder: Path, _: Mapping[str, Path]) -> None:
        copy_model(locate(model), None, folder)

    def work() -> Work:
        shape = named_shape(model)
        return Work(disk_bytes=4 * shape.weights, shape=shape, rate="copy")

    def parameters() -> dict[str, Any]:
        return {"model": model_identity(model)}

    name = Path(model).name
    return Step("named_model", 1, name, parameters(), build, work=work, again=parameters)


def default_tuning(model: Path) -> MaskedLMSettings | CausalLMSettings:
    """Return how ``gotd select`` trains the model of a folder on the target's texts."""
    return (CausalLMSettings if is_causal(model) else MaskedLMSettings)(**TUNING)


def tuned_on_target(base: Step, target: Step, settings: Any, seeds: Mapping[str, int]) -> Step:
    """Train the base model's language-model objective on the target's texts."""

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        texts = [text for shard in open_pool(inputs["target"]) for text in shard.texts.to_pylist()]
        train_model(inputs["base"], texts, settings, seeds, folder)

    def work() -> Work:
        return settings.work(model_shape(base), target.stated.rows, target.stated.tokens)

    name, inputs = f"{base.name}-{target.name}", {"base": base, "target": target}
    return Step("target_tuned", 1, name, training_key(settings, seeds), build, inputs, work)


def pool_losses(model: Step, pool: Step) -> Step:
    """Compute the loss of a language model on every row of a pool, resuming at the row range.

    Masks are a hash of the row's id, so two masked models predict the same tokens.
    """
    settings = TargetLossSettings(max_length_tokens=READ_TOKENS)

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        causal = is_causal(inputs["model"])
        compute = load_losses(inputs["model"], causal, settings, SPLIT_SEED)
        if compute is None:
            raise ValueError(
                f"the model {model.name} has no language-modelling head, so it has no loss; give a "
                "masked or causal language model"
            )

        def of_range(rows: pa.Table) -> pa.Table:
            progress.tick(rows.num_rows)
            # A causal model cannot read a text without a token.
            some = pc.not_equal(pc.utf8_trim_whitespace(rows["text"]), "")
            read = compute(rows.filter(some))
            where = pc.index_in(rows["id"], value_set=read["id"])
            columns = {name: pc.fill_null(read[name].take(where), 0) for name in ("loss", "tokens")}
            return pa.table({"id": rows["id"], **columns})

        losses = []
        for number, shard in enumerate(open_pool(inputs["pool"])):
            rows = pa.table({"id": shard.ids, "text": shard.texts})
            losses.append(by_range(rows, of_range, folder / WORK / f"ranges-{number:05d}"))
        pq.write_table(pa.concat_tables(losses), folder / LOSSES, compression="zstd")

    def work() -> Work:
        read = min(pool.stated.tokens, READ_TOKENS)
        predicted = settings.mask_probability if model_shape(model).is_masked else 1.0
        return scoring_work(model, "float32", pool.stated.rows, read, predicted=predicted)

    parameters = {"settings": identity(settings), "seed": SPLIT_SEED}
    inputs = {"model": model, "pool": pool}
    return Step("pool_losses", 1, f"{pool.name}-{model.name}", parameters, build, inputs, work)


def model_of(encoder: Any, base: Step, candidates: Step) -> Step | None:
    """Return the step whose model embeds, for an encoder that reads the base model.

    Args:
        encoder: The encoder.
        base: The model that will be trained.
        candidates: The pool, on a sample of which an encoder may train the model first.
    """
    if encoder.model_from_step != "warmed":
        return base if encoder.model_from_step == "base" else None

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        rows, seed = encoder.warm_up_rows, encoder.seed
        texts = sample_texts(open_pool(inputs["candidates"]), rows, seed, "warm-up")
        encoder.warm_up(inputs["base"], texts, folder)

    def work() -> Work:
        shape = model_shape(base)
        rows = min(encoder.warm_up_rows, candidates.stated.rows)
        once = encoder.work(rows, candidates.stated.tokens, shape)
        return replace(once, disk_bytes=4 * shape.weights, shape=shape)

    inputs = {"base": base, "candidates": candidates}
    name = f"{base.name}-{candidates.name}"
    return Step("warmed_up", 1, name, {"encoder": encoder.identity()}, build, inputs, work)


def files_of(
    selector: Any,
    base: Step,
    sides: Mapping[str, Step],
    tuning: Any,
    seeds: Mapping[str, int],
) -> dict[str, Step]:
    """Return the steps that write the files of losses that a selector requires.

    Args:
        selector: The selector.
        base: The step of the model that will be trained.
        sides: The steps ``target`` and ``candidates``.
        tuning: How the model is trained on the target's texts.
        seeds: Seeds of that training.

    Returns:
        Steps by requirement; none for a selector that requires no losses.
    """
    steps = {}
    if "losses" in selector.requires & FILES:
        steps["losses"] = pool_losses(base, sides["candidates"])
    if "tuned_losses" in selector.requires & FILES:
        # Losses are those of texts, so it is trained on texts where the warm-up reads pairs.
        of_texts = tuning.of_texts if tuning.reads_pairs else tuning
        tuned = tuned_on_target(base, sides["target"], of_texts, seeds)
        steps["tuned_losses"] = pool_losses(tuned, sides["candidates"])
    return steps
