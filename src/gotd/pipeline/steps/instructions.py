"""Steps of instruction rows: prompts and responses of the pool, and a model's responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gotd.data.sizes import CHARS_PER_TOKEN, expected_rows, task_tokens
from gotd.evaluation.instruction import RESPONSES, Instructed, respond
from gotd.evaluation.likelihood import load_for_scoring
from gotd.evaluation.ranges import by_range
from gotd.pipeline.steps.models import Pairs, measurement, scoring_work
from gotd.storage.artifacts import WORK, Step
from gotd.storage.keys import source_identity
from gotd.storage.work import Work

PAIRS = "instructions.parquet"


def instruction_rows(source: Any, task: str) -> Step:
    """Write prompts and responses of a source's candidates.

    Args:
        source: The source.
        task: Name of the task, for the message.

    Raises:
        ValueError: If the source has no instruction rows.
    """
    if not hasattr(source, "instructions"):
        raise ValueError(
            f"task {task}: instruction tuning needs candidates with prompts and responses, which "
            f"source={source.name} does not have; use source=instructions or another "
            "pre_fine_tune=…"
        )

    def build(folder: Path, _: Mapping[str, Path]) -> None:
        pq.write_table(source.instructions(), folder / PAIRS, compression="zstd")

    def work() -> Work:
        rows = expected_rows(source, "candidates")
        size = 0.5 * rows * CHARS_PER_TOKEN * task_tokens(source, task)
        return Work(texts=rows, disk_bytes=size)

    parameters = {"source": source_identity(source, "candidates")}
    return Step("instructions", 1, source.name, parameters, build, work=work)


def pairs(source: Any, task: Any, rows: Step | None) -> Pairs:
    """Plan where the pairs of a selection come from: the pool, or the target's examples.

    Args:
        source: The source.
        task: The task.
        rows: The step of the target's examples; ``None``: none of them can be selected.

    Raises:
        ValueError: As `instruction_rows`.
    """
    steps = {"instructions": instruction_rows(source, task.name)}
    return Pairs(steps if rows is None else {**steps, "rows": rows}, selected_pairs)


def selected_pairs(selected: pa.Table, folders: Mapping[str, Path]) -> list[tuple[str, str]]:
    """Return the pairs of a selection from the pool or from the target's examples.

    Raises:
        ValueError: As `pairs_of`.
    """
    tables = [pq.read_table(folders["instructions"] / PAIRS)]
    if "rows" in folders:
        examples = pq.read_table(folders["rows"] / "train.parquet")
        tables.append(examples.select(tables[0].column_names).cast(tables[0].schema))
    return pairs_of(selected, tables)


def pairs_of(selected: pa.Table, tables: Sequence[pa.Table]) -> list[tuple[str, str]]:
    """Return prompt and response of selected rows, in their order; repeated rows repeat.

    Args:
        selected: A selection, with the column ``id``.
        tables: Tables with ``id``, ``prompt`` and ``response``, among which the ids are.

    Raises:
        ValueError: If an id is in none of them.
    """
    known = pa.concat_tables([t.select(["id", "prompt", "response"]) for t in tables])
    places = pc.index_in(selected["id"], value_set=known["id"])
    if places.null_count:
        name = selected["id"].filter(pc.is_null(places))[0].as_py()
        raise ValueError(
            f"row {name!r} of the selection has no prompt and response; set candidate_chunks.unit "
            "and target_chunks.unit to whole"
        )
    rows = known.take(places)
    return list(zip(rows["prompt"].to_pylist(), rows["response"].to_pylist(), strict=True))


def responses(evaluation: Instructed, model: Step, rows: Step, task: Any) -> Step:
    """Measure and write the responses to the task's rows, resuming at the row range.

    Raises:
        ValueError: If the task has no prompts to respond to.
    """
    if "reported" not in task.table_names:
        raise ValueError(
            f"task {task.name} has no prompts and responses; use an instruction task, for "
            "instance task=skills"
        )

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        network, tokenizer = load_for_scoring(inputs["model"], evaluation.precision)
        table = pq.read_table(inputs["rows"] / "reported.parquet")
        found = by_range(
            table, lambda some: respond(network, tokenizer, some, evaluation), folder / WORK
        )
        pq.write_table(found, folder / RESPONSES, compression="zstd")

    def work() -> Work:
        # A prompt is read for its response and for what the model writes, and by choices.
        texts, tokens = 2 * rows.stated.evaluated, min(rows.stated.tokens, 512)
        return scoring_work(model, evaluation.precision, texts, tokens, evaluation.batch_tokens)

    return measurement("responses", model, rows, evaluation.read_fields(), build, work)
