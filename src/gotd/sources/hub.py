"""Rows from the Hugging Face Hub: GLUE, domain tasks, a candidate corpus for each of seven domains.

What is fetched is kept as Parquet in the layout of `gotd.sources.folder`, with the
recipe (data set, revision, sampling) in each file, so a machine without a network needs
only that folder. No code from a data set repository is ever run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, cast

import pyarrow as pa
import pyarrow.parquet as pq

from gotd.sources import SourceUnavailable
from gotd.sources.corpora import (
    CORPORA,
    DOMAIN_ROWS,
    GLUE,
    GLUE_ROWS,
    ZERO_SHOT,
    ZERO_SHOT_ROWS,
    Corpus,
)
from gotd.sources.domain_copies import DOMAIN, read_copy
from gotd.sources.files import read
from gotd.sources.rows import documents

VERSION = 1
"""Raise it when the same revision and parameters give other rows."""

SUITES = ("glue", "domain", "zeroshot")

BATCH_ROWS = 1000
RECIPE = b"gotd.recipe"


@dataclass(frozen=True)
class Hub:
    """Tasks and candidates from the hub, kept in a folder once fetched.

    Args:
        path: Folder that keeps what was fetched; not part of the identity.
        domains: Keys of `gotd.sources.corpora.CORPORA`; empty: all seven.
        chars_per_domain: Text to take from each domain, in characters, as whole
            documents. Characters and not documents, because a document is a review in
            one domain and a book in another; 1e9 make a million chunks of 1,000.
        seed: Seed of the shuffle.
        shuffle_buffer: Documents held while shuffling the stream. The shuffle is over
            files and within this buffer, so it is not uniform over a whole corpus; how
            it is done may change with the version of `datasets`, so keep ``path``.
        suite: The tasks: ``glue``, ``domain`` (Gururangan et al. 2020) or ``zeroshot`` (AG
            News and BoolQ).
        revisions: Full commit hash to use by data set id. Where none is given, the
            newest is resolved at first use and recorded in ``<path>/revisions.json``.
    """

    path: str = "artifacts/hub"
    domains: tuple[str, ...] = ()
    chars_per_domain: int = 1_000_000_000
    seed: int = 0
    shuffle_buffer: int = 10_000
    suite: str = "glue"
    revisions: dict[str, str] = field(default_factory=dict)

    name: ClassVar[str] = "hub"

    def __post_init__(self) -> None:
        object.__setattr__(self, "domains", tuple(self.domains) or tuple(CORPORA))
        object.__setattr__(self, "revisions", dict(self.revisions))
        unknown = sorted(set(self.domains) - set(CORPORA))
        if unknown:
            raise ValueError(f"unknown domains {unknown}; use any of {', '.join(CORPORA)}")
        if self.chars_per_domain < 1 or self.shuffle_buffer < 1:
            raise ValueError("chars_per_domain and shuffle_buffer must be at least 1")
        if self.suite not in SUITES:
            raise ValueError(f"suite must be one of {', '.join(SUITES)}, not {self.suite!r}")

    @property
    def under_covered(self) -> list[str]:
        """Nobody knows which domains real corpora lack: empty."""
        return []

    def identity(self) -> dict[str, Any]:
        """Give the revision of every data set and how documents are drawn from it.

        Raises:
            SourceUnavailable: If a revision was never recorded and the hub is out of reach.
        """
        return {
            "name": self.name,
            "version": VERSION,
            "candidates": {domain: self._corpus_recipe(domain) for domain in self.domains},
            "tasks": {task: self._task_recipe(task, "*") for task in self.tasks()},
        }

    def tasks(self) -> list[str]:
        """Name the tasks of the suite."""
        return sorted(self._rows)

    @property
    def _rows(self) -> Mapping[str, Mapping[str, int]]:
        """Published rows of every split of the suite."""
        rows = {"glue": GLUE_ROWS, "domain": DOMAIN_ROWS, "zeroshot": ZERO_SHOT_ROWS}
        return rows[self.suite]

    def split(self, task: str, split: str) -> pa.Table:
        """Give one split of a task, fetched on first use.

        Raises:
            FileNotFoundError: If there is no such task or split with public labels.
            SourceUnavailable: If it is not kept here and the hub is out of reach.
            ValueError: If what came has not the published number of rows.
        """
        if split not in self._rows.get(task, {}):
            known = sorted(f"{t}/{s}" for t, splits in self._rows.items() for s in splits)
            raise FileNotFoundError(f"no {task}/{split} with labels; there is: {', '.join(known)}")
        return read(self._kept_split(task, split))

    def candidates(self) -> pa.Table:
        """Give the documents of all domains, fetched on first use.

        Raises:
            SourceUnavailable: If some are not kept here and the hub is out of reach.
            ValueError: If a corpus lacks a column or holds less text than asked for.
        """
        return documents([self._kept_domain(domain) for domain in self.domains])

    def pretraining(self) -> pa.Table:
        """Refuse: models for this source come pre-trained, on text nobody published.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "the hub source has no pre-training text; use a model that is already pre-trained"
        )

    def fetch(self) -> list[Path]:
        """Fetch everything that is not kept yet, for use without a network."""
        splits = [self._kept_split(t, s) for t, names in self._rows.items() for s in names]
        return splits + [self._kept_domain(domain) for domain in self.domains]

    # The two kinds of file ----------------------------------------------------------

    def _task_recipe(self, task: str, split: str) -> dict[str, Any]:
        if self.suite == "domain":
            return self._copied(task) | {"task": task, "split": split}
        if self.suite == "zeroshot":
            dataset = ZERO_SHOT[task]
            revision = self._revision(dataset, f"task {task}")
            return {"dataset": dataset, "split": split, "revision": revision}
        revision = self._revision(GLUE, f"task {task}")
        return {"dataset": GLUE, "config": task, "split": split, "revision": revision}

    def _copied(self, task: str) -> dict[str, str]:
        """Give the copy of a domain task to read: one that is known already, else the first there.

        Raises:
            SourceUnavailable: If no copy can be had; names the first.
        """
        unreached = []
        for copy in sorted(DOMAIN[task], key=lambda copy: copy.dataset not in self._known()):
            try:
                revision = self._revision(copy.dataset, f"task {task}")
            except SourceUnavailable as error:
                unreached.append(error)
            else:
                return {"dataset": copy.dataset, "revision": revision}
        raise unreached[0]

    def _kept_split(self, task: str, split: str) -> Path:
        path = Path(self.path) / self.suite / task / f"{split}.parquet"
        recipe = self._task_recipe(task, split)
        if _is_kept(path, recipe):
            return path
        dataset, revision = recipe["dataset"], recipe["revision"]
        with _reaching(dataset, f"task {task}", self.path):
            if self.suite == "domain":
                table = read_copy(task, dataset, split, revision)
            else:
                rows = _load(dataset, recipe.get("config"), split, revision, streaming=False)
                table = rows.with_format("arrow")[:]
        if "answer" in table.column_names:  # BoolQ's label is a truth value
            table = table.append_column("label", table["answer"].cast(pa.int64()))
        expected = self._rows[task][split]
        if table.num_rows != expected:
            raise ValueError(
                f"{dataset} {task}/{split} has {table.num_rows} rows, published are {expected}; "
                "pin another revision of it"
            )
        _write(path, recipe, table.schema, [table])
        return path

    def _corpus_recipe(self, domain: str) -> dict[str, Any]:
        corpus = CORPORA[domain]
        return {
            "dataset": corpus.dataset,
            "config": corpus.config,
            "columns": list(corpus.columns),
            "revision": self._revision(corpus.dataset, f"domain {domain}"),
            "chars": self.chars_per_domain,
            "seed": self.seed,
            "shuffle_buffer": self.shuffle_buffer,
        }

    def _kept_domain(self, domain: str) -> Path:
        path = Path(self.path) / "candidates" / f"{domain}.parquet"
        recipe = self._corpus_recipe(domain)
        if _is_kept(path, recipe):
            return path
        corpus = CORPORA[domain]
        with _reaching(corpus.dataset, f"domain {domain}", self.path):
            stream = _load(
                corpus.dataset,
                corpus.config,
                "train",
                recipe["revision"],
                streaming=True,
                files=corpus.files,
            )
            stream = stream.shuffle(seed=self.seed, buffer_size=self.shuffle_buffer)
        texts = _texts(_reached(iter(stream), corpus.dataset, domain, self.path), domain, corpus)
        schema = pa.schema([(name, pa.string()) for name in ("id", "text", "domain")])
        _write(path, recipe, schema, _batches(texts, domain, self.chars_per_domain))
        return path

    # Revisions ----------------------------------------------------------------------

    def _revision(self, dataset: str, what: str) -> str:
        """Give the commit to read: the pinned one, the recorded one, or the newest."""
        recorded = self._recorded()
        known = self.revisions.get(dataset) or recorded.get(dataset)
        if known is not None:
            return known
        from huggingface_hub import HfApi

        with _reaching(dataset, what, self.path):
            newest = HfApi().dataset_info(dataset).sha
        if newest is None:
            raise SourceUnavailable(f"the hub names no revision of {dataset}; pin one")
        text = json.dumps({**recorded, dataset: newest}, indent=1, sort_keys=True)
        _write_text(self._record, text)
        return newest

    @property
    def _record(self) -> Path:
        return Path(self.path) / "revisions.json"

    def _recorded(self) -> dict[str, str]:
        """Read the commits that earlier runs resolved."""
        if not self._record.is_file():
            return {}
        return json.loads(self._record.read_text(encoding="utf-8"))

    def _known(self) -> set[str]:
        """Name the data sets whose commit is pinned or recorded."""
        return {*self.revisions, *self._recorded()}


def _load(
    dataset: str,
    config: str | None,
    split: str,
    revision: str,
    *,
    streaming: bool,
    files: str | None = None,
) -> Any:
    """Open a data set by its id, or by its files where the id leads to a script."""
    import datasets

    try:
        return datasets.load_dataset(
            dataset, config, split=split, revision=revision, streaming=streaming
        )
    except RuntimeError as error:
        # Scripts are refused by `datasets` itself; the plain files beside one are not.
        if files is None or "Dataset scripts" not in str(error):
            raise
        return datasets.load_dataset(
            "parquet" if files.endswith(".parquet") else "json",
            data_files={split: f"hf://datasets/{dataset}@{revision}/{files}"},
            split=split,
            streaming=streaming,
        )


@contextmanager
def _reaching(dataset: str, what: str, path: str) -> Iterator[None]:
    """Turn every way in which the hub can be out of reach into one clear line."""
    from huggingface_hub.errors import HfHubHTTPError

    # The bases are OSError and the HTTP client's own root, which is none; which client
    # that is has changed between versions of the hub's package.
    unreachable = cast("tuple[type[Exception], ...]", HfHubHTTPError.__bases__)
    try:
        yield
    except (*unreachable, RuntimeError) as error:
        cause = " ".join(str(error).split())[:200] or "no reason given"
        raise SourceUnavailable(
            f"{what} needs the data set {dataset!r}, which is not in {path} and cannot be had "
            f"from the hub ({type(error).__name__}: {cause}); fetch it on a machine with a "
            f"network and copy {path} here, or run with SCALE=folder or SCALE=micro"
        ) from error


def _reached(
    stream: Iterator[dict[str, Any]], dataset: str, domain: str, path: str
) -> Iterator[dict[str, Any]]:
    while True:
        with _reaching(dataset, f"domain {domain}", path):
            try:
                row = next(stream)
            except StopIteration:
                return
        yield row


def _texts(rows: Iterable[dict[str, Any]], domain: str, corpus: Corpus) -> Iterator[str]:
    """Yield the text of each row that has one."""
    for row in rows:
        missing = [column for column in corpus.columns if column not in row]
        if missing:
            raise ValueError(
                f"{corpus.dataset} ({domain}) has no column {missing[0]!r}; it has "
                f"{', '.join(row)}: pin a revision that has it"
            )
        text = "\n".join(str(row[column]) for column in corpus.columns if row[column]).strip()
        if text:
            yield text


def _batches(texts: Iterator[str], domain: str, chars: int) -> Iterator[pa.Table]:
    """Yield tables of whole documents until they hold ``chars`` characters.

    Ids count the documents as drawn, so the documents of a smaller draw with the same
    seed are the first of a larger one.

    Raises:
        ValueError: If the corpus ends before that.
    """
    taken = 0
    rows = 0
    while taken < chars:
        batch = []
        for text in islice(texts, BATCH_ROWS):
            batch.append(text)
            taken += len(text)
            if taken >= chars:
                break
        if not batch:
            raise ValueError(
                f"domain {domain} ends after {taken:,} characters in {rows:,} documents; "
                f"set chars_per_domain to that or less (it is {chars:,})"
            )
        ids = [f"{domain}/{rows + i}" for i in range(len(batch))]
        rows += len(batch)
        yield pa.table({"id": ids, "text": batch, "domain": pa.repeat(domain, len(batch))})


def _is_kept(path: Path, recipe: dict[str, Any]) -> bool:
    if not path.is_file():
        return False
    metadata = pq.read_schema(path).metadata or {}
    return json.loads(metadata.get(RECIPE, b"null")) == recipe


def _write(
    path: Path, recipe: dict[str, Any], schema: pa.Schema, tables: Iterable[pa.Table]
) -> None:
    """Write a Parquet file whole or not at all, its recipe inside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    schema = schema.with_metadata({RECIPE: json.dumps(recipe).encode()})
    try:
        with pq.ParquetWriter(part, schema, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table.cast(schema))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(path)
