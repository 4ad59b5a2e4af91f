"""Rows from the Hugging Face Hub: tasks, and a candidate corpus for each of seven domains.

What is fetched is cached as Parquet in the layout of `gotd.data.folder`, with the recipe
(data set, revision, sampling) in each file, so a machine without a network needs only
that folder. No code from a data set repository is ever run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gotd.data.base import SCHEMA, Part, SourceUnavailable
from gotd.data.columns import Columns
from gotd.data.hub.access import (
    HubAccess,
    SourceAbsent,
    cached_recipe,
    from_files,
    is_cached,
    write_cached,
)
from gotd.data.hub.corpora import COPIES, CORPORA, DATASETS, GLUE, SUITES, sample_documents
from gotd.data.hub.tasks import as_comments, as_rated, read_copy, title
from gotd.data.readers import read_table, stream
from gotd.storage.checks import check_at_least, check_choice
from gotd.storage.files import locked
from gotd.storage.hub_record import REVISIONS

VERSION = 1
"""Raise it when the same revision and parameters give other rows."""

SHUFFLE_BUFFER = 10_000
"""Documents in memory while a stream is shuffled.

The shuffle is over files and within this buffer, so it is not uniform over a corpus. How
it is done may change with the version of `datasets`: the cached files are the record.
"""


@dataclass(frozen=True)
class Hub:
    """Tasks and candidates from the Hub, cached in a folder.

    Args:
        path: Folder of the cache; not part of the identity.
        domains: Keys of `gotd.data.hub.corpora.CORPORA`; empty: all seven.
        chars_per_domain: Text to sample from each domain, in characters, as full
            documents. Characters and not documents, because a document is a review in
            one domain and a book in another; 1e9 make a million chunks of 1,000.
        seed: Seed of the shuffle.
        suite: The tasks: ``glue``, ``domain`` (Gururangan et al. 2020), ``zeroshot`` (AG
            News and BoolQ) or ``toxicity`` (RealToxicityPrompts and Civil Comments).
        held_out_chars: Text of each domain, sampled after that of the candidates, on which
            nothing is trained; its perplexity is measured.
        revisions: Full commit hash to use by data set id. Where none is given, the
            newest is resolved at first use and recorded in ``<path>/revisions.json``.
    """

    path: str = "artifacts/hub"
    domains: tuple[str, ...] = ()
    chars_per_domain: int = 1_000_000_000
    seed: int = 0
    suite: str = "glue"
    held_out_chars: int = 0
    revisions: dict[str, str] = field(default_factory=dict)

    name: ClassVar[str] = "hub"
    generated: ClassVar[bool] = False
    candidate_options: ClassVar[frozenset[str]] = frozenset({"files"})
    under_covered: ClassVar[list[str]] = []
    """Which domains real corpora lack is not known."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "domains", tuple(self.domains) or tuple(CORPORA))
        object.__setattr__(self, "revisions", dict(self.revisions))
        unknown = sorted(set(self.domains) - set(CORPORA))
        if unknown:
            raise ValueError(f"unknown domains {unknown}; use any of {', '.join(CORPORA)}")
        check_at_least(self, 1, "chars_per_domain")
        check_at_least(self, 0, "held_out_chars")
        check_choice(self, "suite", SUITES)

    def identity(self) -> dict[str, Any]:
        """Return the revision of every data set and how documents are sampled from it.

        Raises:
            SourceUnavailable: If a revision was never recorded and the hub is out of reach.
        """
        return {
            "name": self.name,
            "version": VERSION,
            "candidates": {domain: self.corpus_recipe(domain) for domain in self.domains},
            "tasks": {task: self._task_recipe(task, "*") for task in self.tasks()},
        }

    def tasks(self) -> list[str]:
        """List the tasks of the suite."""
        return sorted(self._rows)

    def count(self, role: str) -> int | None:
        """Return the published rows of a split, or 1,000 characters of candidates as a row."""
        if role == "candidates":
            return self.chars_per_domain * len(self.domains) // 1_000
        task, _, split = role.partition("/")
        return self._rows.get(task, {}).get(split)

    @property
    def _rows(self) -> Mapping[str, Mapping[str, int]]:
        """Return the published number of rows of every split of the suite."""
        return SUITES[self.suite]

    def split(self, task: str, split: str) -> pa.Table:
        """Read one split of a task, fetched on first use.

        Raises:
            FileNotFoundError: If there is no such task or split with public labels.
            SourceUnavailable: If it is not cached and the Hub is out of reach.
            ValueError: If the split does not have the published number of rows.
        """
        if split not in self._rows.get(task, {}):
            known = sorted(f"{t}/{s}" for t, splits in self._rows.items() for s in splits)
            raise FileNotFoundError(f"no {task}/{split} with labels; there is: {', '.join(known)}")
        return read_table(self._split_file(task, split))

    def candidates(self) -> list[Part]:
        """Return the documents of each domain as a part, fetched when it is first read."""
        return [DomainPart(self, domain, held_out=False) for domain in self.domains]

    def held_out(self) -> list[Part]:
        """Return the documents that were sampled after the candidates.

        Raises:
            ValueError: If ``held_out_chars`` is 0.
        """
        if self.held_out_chars == 0:
            raise ValueError(
                "the hub source holds no text out: set source.held_out_chars above 0, or "
                "task.held_out_rows=0 to do without perplexity"
            )
        return [DomainPart(self, domain, held_out=True) for domain in self.domains]

    def pretraining(self) -> list[Part]:
        """Raise: models for this source come pre-trained, on text that was not published.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "the hub source has no pre-training text; use a model that is already pre-trained"
        )

    def fetch(self) -> list[Path]:
        """Fetch everything that is not cached, for use without a network."""
        splits = [self._split_file(t, s) for t, names in self._rows.items() for s in names]
        return splits + [self.domain_file(domain) for domain in self.domains]

    @property
    def _access(self) -> HubAccess:
        remedy = (
            f"fetch it on a machine with a network and copy {self.path} here, or run with "
            "SCALE=folder or SCALE=micro"
        )
        return HubAccess(Path(self.path) / REVISIONS, remedy, self.revisions)

    # Tasks --------------------------------------------------------------------------

    def _task_recipe(self, task: str, split: str) -> dict[str, Any]:
        if self.suite == "domain":
            return {**self._domain_copy(task), "task": task, "split": split}
        dataset = DATASETS.get(task, GLUE)
        revision = self._access.revision(dataset, title(task, dataset))
        config = {"config": task} if dataset == GLUE else {}
        return {"dataset": dataset, **config, "split": split, "revision": revision}

    def _domain_copy(self, task: str) -> dict[str, str]:
        """Return the copy of a domain task to read: a known one, else the first there is.

        Raises:
            SourceUnavailable: If no copy can be read (names the first), or the Hub does not answer.
        """
        access, unreached = self._access, []
        known = access.known()
        for dataset in sorted(COPIES[task], key=lambda dataset: dataset not in known):
            try:
                revision = access.revision(dataset, title(task, dataset))
            except SourceAbsent as error:  # not for a moment: copies differ in their order
                unreached.append(error)
            else:
                return {"dataset": dataset, "revision": revision}
        raise unreached[0]

    def _split_file(self, task: str, split: str) -> Path:
        """Return the file of a split, fetched on first use."""
        path = Path(self.path) / self.suite / task / f"{split}.parquet"
        recipe = self._task_recipe(task, split)
        if is_cached(path, recipe):
            return path
        table = self._fetch_split(task, split, recipe)
        expected = self._rows[task][split]
        if table.num_rows != expected:
            raise ValueError(
                f"{recipe['dataset']} {task}/{split} has {table.num_rows} rows, published are "
                f"{expected}; pin another revision of it"
            )
        write_cached(path, recipe, table.schema, [table])
        return path

    def _fetch_split(self, task: str, split: str, recipe: dict[str, Any]) -> pa.Table:
        dataset, revision = recipe["dataset"], recipe["revision"]
        if self.suite == "domain":
            return read_copy(self._access, task, dataset, split, revision)
        where = (dataset, recipe.get("config"))
        rows = self._access.load(title(task, dataset), *where, split=split, revision=revision)
        table = rows.with_format("arrow")[:]
        if self.suite == "toxicity":
            return (as_rated if task == "realtoxicityprompts" else as_comments)(table)
        if "answer" in table.column_names:  # BoolQ's label is a truth value
            table = table.append_column("label", table["answer"].cast(pa.int64()))
        return table

    # Domains ------------------------------------------------------------------------

    def corpus_recipe(self, domain: str) -> dict[str, Any]:
        """Return data set, revision and sampling of a domain, as its file records them."""
        corpus = CORPORA[domain]
        return {
            "dataset": corpus.dataset,
            "config": corpus.config,
            "columns": list(corpus.columns),
            "revision": self._access.revision(corpus.dataset, _domain(domain)),
            "chars": self.chars_per_domain,
            **({"held_out_chars": self.held_out_chars} if self.held_out_chars else {}),
            "seed": self.seed,
            "shuffle_buffer": SHUFFLE_BUFFER,
        }

    def domain_file(self, domain: str) -> Path:
        """Return a file that begins with the candidates, then text held out; fetched if needed.

        Documents are sampled in one order, so a larger sample serves all smaller ones.
        """
        path = Path(self.path) / "candidates" / f"{domain}.parquet"
        recipe = self.corpus_recipe(domain)
        if self._covers(path, recipe):
            return path
        with locked(Path(self.path) / ".locks" / domain, f"that fetches the domain {domain}"):
            return path if self._covers(path, recipe) else self._fetch_domain(domain, path, recipe)

    def _covers(self, path: Path, recipe: dict[str, Any]) -> bool:
        """Return whether a file holds the documents of a recipe, and maybe more."""
        cached = cached_recipe(path)
        if cached is None or {**cached, **_SIZES} != {**recipe, **_SIZES}:
            return False
        return cached == recipe or _holds(path, self.chars_per_domain, self.held_out_chars)

    def _fetch_domain(self, domain: str, path: Path, recipe: dict[str, Any]) -> Path:
        """Stream the documents of a domain into its file."""
        rows = self._open_corpus(domain, recipe["revision"])
        rows = iter(rows.shuffle(seed=self.seed, buffer_size=SHUFFLE_BUFFER))
        texts = CORPORA[domain].texts(self._access.each(_domain(domain), rows), domain)
        parts = {"chars_per_domain": self.chars_per_domain, "held_out_chars": self.held_out_chars}
        schema = pa.schema([(name, pa.string()) for name in SCHEMA.names])
        write_cached(path, recipe, schema, sample_documents(texts, domain, parts))
        return path

    def _open_corpus(self, domain: str, revision: str) -> Any:
        """Load a corpus by its id, or by its files where the id leads to a script."""
        corpus, what = CORPORA[domain], _domain(domain)
        source = {"split": "train", "revision": revision, "streaming": True}
        try:
            return self._access.load(what, corpus.dataset, corpus.config, **source)
        except SourceUnavailable as error:
            # Scripts are refused by `datasets` itself; the plain files beside one are not.
            if corpus.files is None or "Dataset scripts" not in str(error):
                raise
        kind, options = from_files(corpus.dataset, revision, "train", corpus.files)
        return self._access.load(what, kind, **options, streaming=True)


_SIZES = {"chars": None, "held_out_chars": None}
"""The fields of a recipe that only say how many documents there are."""


def _holds(path: Path, chars: int, held_out_chars: int) -> bool:
    """Return whether a file has so many characters, and after those documents so many more."""
    texts = pq.read_table(path, columns=["text"])["text"]
    lengths = pc.utf8_length(texts).to_numpy().astype(np.int64)
    ends = np.cumsum(lengths)
    candidates = int(np.searchsorted(ends - lengths, chars))
    return int(lengths[:candidates].sum()) >= chars and (
        int(lengths[candidates:].sum()) >= held_out_chars
    )


def _domain(domain: str) -> str:
    return f"domain {domain} (data set {CORPORA[domain].dataset})"


@dataclass(frozen=True)
class DomainPart:
    """Candidates of a domain, or the documents held out, which follow them in its file.

    Args:
        source: The hub source.
        label: Name of the domain.
        held_out: Whether these are the documents held out.
    """

    source: Hub
    label: str
    held_out: bool

    def identity(self) -> dict[str, Any]:
        """Return data set, revision and how its documents are sampled; nothing is fetched.

        Raises:
            SourceUnavailable: If a revision was never recorded and the hub is out of reach.
        """
        return {**self.source.corpus_recipe(self.label), "held_out": self.held_out}

    def pieces(self) -> Iterator[pa.Table]:
        """Yield tables of ``id``, ``text`` and ``domain``, fetched on first use.

        Raises:
            SourceUnavailable: If the domain is not on this machine and the hub is out of reach.
            ValueError: If the corpus lacks a column or holds less text than asked for.
        """
        chars = held = 0
        for table in stream(self.source.domain_file(self.label), Columns(), self.label):
            lengths = pc.utf8_length(table["text"]).to_numpy().astype(np.int64)
            ends = chars + np.cumsum(lengths)
            # A candidate begins before the limit; the last one ends at or after it.
            candidates = int(np.searchsorted(ends - lengths, self.source.chars_per_domain))
            if self.held_out:
                rest = lengths[candidates:]
                begins = held + np.cumsum(rest) - rest
                yield table.slice(candidates, int((begins < self.source.held_out_chars).sum()))
                held += int(rest.sum())
            else:
                yield table.slice(0, candidates)
            chars = int(ends[-1])
