"""The eight domain tasks of Gururangan et al. (2020) on the hub, one plain file per split.

No copy there is the authors' own, so the published row counts (`corpora.DOMAIN_ROWS`) are
checked on what is read. Licences are not stated; each data set's own terms apply.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.hub.access import HubAccess, from_files


@dataclass(frozen=True)
class Copy:
    """One copy on the hub of a domain task: plain files, one for each split.

    Args:
        dataset: Data set id, ``namespace/name``.
        pattern: Name of the files inside the repository, with ``{}`` for the split; other
            files there may hold gigabytes and are never read.
    """

    dataset: str
    pattern: str

    def file(self, split: str) -> str:
        """Return the name of the file of a split."""
        return self.pattern.format("dev" if split == "validation" else split)


def _tables(name: str) -> Copy:
    return Copy(f"yxchar/{name}-tlm", "{}.csv")


def _lines(name: str) -> Copy:
    return Copy(f"zapsdcn/{name}", name + "_{}.jsonl")


DOMAIN: Mapping[str, tuple[Copy, ...]] = {
    "rct": (_tables("rct-20k"), _lines("rct-20k")),
    "chemprot": (_tables("chemprot"), _lines("chemprot")),
    "acl_arc": (_tables("citation_intent"), _lines("citation_intent")),
    "scierc": (_tables("sciie"), _lines("sciie")),
    "hyperpartisan": (_tables("hyp"), _lines("hyperpartisan_news")),
    "agnews": (_tables("ag"),),
    "helpfulness": (_tables("amazon"),),
    "imdb": (_tables("imdb"), _lines("imdb")),
}
"""Copies of each domain task, the first choice first: that of Yao et al. (2022), complete and
with whole numbers as labels, then that of Gururangan et al., with names as labels."""


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
    (copy,) = (one for one in DOMAIN[task] if one.dataset == dataset)

    def read(split: str) -> pa.Table:
        what = f"task {task} (data set {dataset})"
        kind, options = from_files(dataset, revision, split, copy.file(split))
        table = access.load(what, kind, **options).with_format("arrow")[:]
        for column in ("text", "label"):
            if column not in table.column_names:
                raise ValueError(
                    f"{dataset} {split} has no column {column!r}; it has "
                    f"{', '.join(table.column_names)}: pin a revision that has it"
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
