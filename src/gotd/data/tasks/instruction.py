"""Targets of instruction tuning: a few examples to select for, other rows to answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from gotd.config.schemas import TaskLimits
from gotd.data.base import Source
from gotd.data.instructions import read_instructions, text_of
from gotd.data.sampling import at_most
from gotd.data.sizes import expected_rows
from gotd.storage.checks import check_at_least
from gotd.storage.keys import identity, source_identity

EXAMPLES, TEST = "examples", "test"
EXTRA = ("choices", "label", "answer", "references")
"""Columns that a file may have beside prompts and responses."""
ANSWERED = pa.schema(
    [
        ("part", pa.string()),
        ("references", pa.list_(pa.large_string())),
        ("choices", pa.list_(pa.large_string())),
        ("label", pa.int64()),
        ("number", pa.bool_()),
    ]
)
"""Columns of the rows to answer beside ``id``, ``prompt`` and ``response``.

Of ``references`` any is right. ``choices`` are the responses of which one is right, or null, and
``label`` is its position. ``number``: the answer is the last number of a response.
"""


@dataclass(frozen=True)
class InstructionTask:
    """Examples of prompts and responses, and rows on which responses are measured.

    Args:
        name: Name in records, and in the source.
        evaluated_rows: Most rows to answer, by a hash of their ids, the same for all seeds and
            arms; ``None``: all.
    """

    key_name: ClassVar[str] = "InstructionTask"
    rows_kind: ClassVar[str] = "instruction_rows"
    table_names: ClassVar[tuple[str, ...]] = ("train", "reported")

    name: str
    evaluated_rows: int | None = None

    def __post_init__(self) -> None:
        check_at_least(self, 1, "evaluated_rows", prefix=f"task {self.name}: ")

    def tables(
        self, source: Source, limits: TaskLimits, protocol: str, seed: int
    ) -> dict[str, pa.Table]:
        """Return the examples, with their prompts and responses, and the rows to answer.

        Raises:
            FileNotFoundError: If the source has no such target.
            ValueError: If a row is incomplete; names file, row and field.
        """
        raw = source.split(self.name, EXAMPLES)
        examples = read_instructions(raw, f"{source.name} {self.name}/{EXAMPLES}")
        nothing = pa.nulls(examples.num_rows, pa.string())
        train = pa.table(
            {
                "id": examples["id"],
                "text": text_of(examples),
                "text_pair": nothing,
                "domain": _part(raw),
                "prompt": examples["prompt"],
                "response": examples["response"],
            }
        )
        return {"train": train, "reported": self._reported(source)}

    def _reported(self, source: Source) -> pa.Table:
        raw = source.split(self.name, TEST)
        where = f"{source.name} {self.name}/{TEST}"
        rows = read_instructions(raw, where)
        extra = [name for name in EXTRA if name in raw.column_names]
        given = raw.select(extra).to_pylist() if extra else [{}] * raw.num_rows
        answers = [
            _answer(row, response, f"{where} row {number}")
            for number, (row, response) in enumerate(
                zip(given, rows["response"].to_pylist(), strict=True), start=1
            )
        ]
        columns = {name: [answer[name] for answer in answers] for name in ANSWERED.names[1:]}
        rows = rows.append_column("part", _part(raw))
        for field in list(ANSWERED)[1:]:
            rows = rows.append_column(field, pa.array(columns[field.name], field.type))
        return at_most(rows, self.evaluated_rows, "evaluated")

    def held_out_texts(self, rows: Path) -> pa.Table:
        """Read the texts of the rows to answer; the part is the task they are of."""
        reported = pq.read_table(rows / "reported.parquet")
        return pa.table({"id": reported["id"], "text": text_of(reported), "part": reported["part"]})

    def count_rows(self, source: Source, limits: TaskLimits, protocol: str) -> tuple[int, int]:
        """Return the expected examples, and the rows to answer."""
        examples = expected_rows(source, f"{self.name}/{EXAMPLES}", limits.target_rows)
        return examples, expected_rows(source, f"{self.name}/{TEST}", self.evaluated_rows)

    def key_fields(
        self, source: Source, limits: TaskLimits, protocol: str, seed: int
    ) -> dict[str, Any]:
        """Return what `tables` depends on: not on the seed.

        Raises:
            ValueError: If the source has no instruction rows.
        """
        if not hasattr(source, "instructions"):
            raise ValueError(
                f"task {self.name} needs a source of instruction rows, not {source.name}; use "
                "source=instructions or source=microworld_instructions"
            )
        return {"source": source_identity(source, "tasks", self.name), "task": identity(self)}


def _part(rows: pa.Table) -> Any:
    if "task" in rows.column_names:
        return rows["task"].cast(pa.string())
    return pa.nulls(rows.num_rows, pa.string())


def _answer(row: dict[str, Any], response: str, where: str) -> dict[str, Any]:
    """Return what is right for a row: references, choices as responses, and their label.

    Raises:
        ValueError: If the response is neither the label's choice nor its letter.
    """
    choices, label, answer = row.get("choices"), row.get("label"), row.get("answer")
    references = row.get("references") or [response if answer is None else str(answer)]
    if choices:
        if label is None or not 0 <= label < len(choices):
            raise ValueError(f"{where}: label {label} is none of the {len(choices)} choices")
        if response != choices[label]:
            # A response may be the letter of a choice.
            choices = [f"({chr(ord('A') + number)})" for number in range(len(choices))]
        if response != choices[label]:
            raise ValueError(
                f"{where}: the response {response!r} is neither the choice of the label nor its "
                f"letter {choices[label]!r}; repair the row"
            )
    return {
        "references": references,
        "choices": choices or None,
        "label": label if choices else None,
        "number": answer is not None,
    }
