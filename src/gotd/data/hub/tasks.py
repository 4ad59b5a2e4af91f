"""Tasks of the Hub in the form in which a folder has them.

Domain tasks are read from plain files, one for each split. RealToxicityPrompts and Civil Comments
become rated prompts and labelled comments.
"""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.columns import strings
from gotd.data.hub.access import HubAccess, from_files
from gotd.data.hub.corpora import COPIES
from gotd.storage.printing import listed

TOXIC_FROM = 0.5
"""Share of raters who call a comment toxic from which its label is 1 (Civil Comments' own rule)."""


def title(task: str, dataset: str) -> str:
    """Return what to call a task in an error message."""
    return f"task {task} (data set {dataset})"


def read_copy(access: HubAccess, task: str, dataset: str, split: str, revision: str) -> pa.Table:
    """Read one split of a domain task.

    Args:
        access: Loads data sets.
        task: The task.
        dataset: Which of its copies.
        split: ``train``, ``validation`` or ``test``.
        revision: Commit of the data set.

    Returns:
        ``text`` (string) and ``label`` (int64). Names of classes become numbers in the
        alphabetical order of those in train.

    Raises:
        SourceUnavailable: If the copy cannot be read.
        ValueError: If a column is missing, or train lacks a class.
    """

    def read(split: str) -> pa.Table:
        file = COPIES[task][dataset].format("dev" if split == "validation" else split)
        kind, options = from_files(dataset, revision, split, file)
        table = access.load(title(task, dataset), kind, **options).with_format("arrow")[:]
        for column in ("text", "label"):
            if column not in table.column_names:
                raise ValueError(
                    f"{dataset} {split} has no column {column!r}; it has "
                    f"{listed(table.column_names, column)}: pin a revision that has it"
                )
        return table

    rows = read(split)
    label = rows["label"]
    if not pa.types.is_integer(label.type):
        train = rows if split == "train" else read("train")
        names = pa.array(sorted(train["label"].cast(pa.string()).unique().to_pylist()))
        label = pc.index_in(label.cast(pa.string()), value_set=names).cast(pa.int64())
        if label.null_count:
            raise ValueError(
                f"{dataset} {split} has a class that train lacks; pin another revision"
            )
    return pa.table({"text": rows["text"].cast(pa.string()), "label": label})


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
    place = ("filename", "begin", "end")
    lacking = [name for name in place if name not in raw.column_names]
    if lacking:
        raise ValueError(f"{where} has no column {lacking[0]!r}; pin a revision that has it")
    seen: Counter[str] = Counter()
    ids = []
    for file, begin, end in zip(*(raw[name].to_pylist() for name in place), strict=True):
        name = f"{file}:{int(begin)}-{int(end)}"
        seen[name] += 1
        ids.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return pa.array(ids, pa.string())
