"""The toxicity data sets of the Hub, converted to rated prompts and labelled comments."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.columns import strings

TOXIC_FROM = 0.5
"""Share of raters who call a comment toxic from which its label is 1 (Civil Comments' own rule)."""


def as_rated(raw: pa.Table) -> pa.Table:
    """Convert RealToxicityPrompts to flat columns, a score for each text.

    Args:
        raw: ``filename``, ``begin``, ``end``, and ``prompt`` and ``continuation``, each a
            struct of ``text`` and its scores.

    Returns:
        ``id``, ``prompt``, ``continuation`` and a float64 ``<text>_toxicity`` each, null
        where it is unknown.

    Raises:
        ValueError: If a column is missing.
    """
    where = "allenai/real-toxicity-prompts"
    columns = {"id": _ids(raw, where)}
    for name in ("prompt", "continuation"):
        kind = raw.schema.field(name).type if name in raw.column_names else pa.null()
        known = kind.names if isinstance(kind, pa.StructType) else []
        if not {"text", "toxicity"} <= {*known}:
            raise ValueError(
                f"{where} has no {name}.text and {name}.toxicity; pin a revision that has them"
            )
        columns[name] = pc.struct_field(raw[name], "text")
        columns[f"{name}_toxicity"] = pc.struct_field(raw[name], "toxicity").cast(pa.float64())
    return pa.table(columns)


def as_comments(raw: pa.Table) -> pa.Table:
    """Return Civil Comments with labels: 1 where at least half of the raters said toxic.

    Args:
        raw: ``text`` and ``toxicity``, a share in [0, 1].

    Returns:
        ``text`` and ``label`` (int64).

    Raises:
        ValueError: If a column is missing.
    """
    where = "google/civil_comments"
    if "toxicity" not in raw.column_names:
        raise ValueError(f"{where} has no column 'toxicity'; pin a revision that has it")
    label = pc.greater_equal(raw["toxicity"].cast(pa.float64()), TOXIC_FROM).cast(pa.int64())
    return pa.table({"text": strings(raw, "text", where), "label": label})


def _ids(raw: pa.Table, where: str) -> pa.Array:
    """Return ids: the position in the document, and a number where that is repeated."""
    lacking = [name for name in ("filename", "begin", "end") if name not in raw.column_names]
    if lacking:
        raise ValueError(f"{where} has no column {lacking[0]!r}; pin a revision that has it")
    seen: Counter[str] = Counter()
    ids = []
    for file, begin, end in zip(
        *(raw[c].to_pylist() for c in ("filename", "begin", "end")), strict=True
    ):
        name = f"{file}:{int(begin)}-{int(end)}"
        seen[name] += 1
        ids.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return pa.array(ids, pa.string())
