"""Rows from the Hugging Face Hub: GLUE, domain tasks, a candidate corpus for each of seven domains.

What is fetched is kept as Parquet in the layout of `gotd.data.folder`, with the
recipe (data set, revision, sampling) in each file, so a machine without a network needs
only that folder. No code from a data set repository is ever run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.base import Part, SourceUnavailable
from gotd.data.files import read
from gotd.data.hub.cache import is_kept, keep, recorded, remember
from gotd.data.hub.corpora import (
    CORPORA,
    DOMAIN_ROWS,
    GLUE,
    GLUE_ROWS,
    TOXICITY,
    TOXICITY_ROWS,
    ZERO_SHOT,
    ZERO_SHOT_ROWS,
)
from gotd.data.hub.domain_copies import DOMAIN, read_copy
from gotd.data.hub.sampling import drawn, texts_of
from gotd.data.hub.toxicity import as_comments, as_rated
from gotd.data.readers import Columns, stream

VERSION = 1
"""Raise it when the same revision and parameters give other rows."""

SUITES = ("glue", "domain", "zeroshot", "toxicity")


@dataclass(frozen=True)
class Hub:
    """Tasks and candidates from the hub, kept in a folder once fetched.

    Args:
        path: Folder that keeps what was fetched; not part of the identity.
        domains: Keys of `gotd.data.hub.corpora.CORPORA`; empty: all seven.
        chars_per_domain: Text to take from each domain, in characters, as whole
            documents. Characters and not documents, because a document is a review in
            one domain and a book in another; 1e9 make a million chunks of 1,000.
        seed: Seed of the shuffle.
        shuffle_buffer: Documents held while shuffling the stream. The shuffle is over
            files and within this buffer, so it is not uniform over a whole corpus; how
            it is done may change with the version of `datasets`, so keep ``path``.
        suite: The tasks: ``glue``, ``domain`` (Gururangan et al. 2020), ``zeroshot`` (AG
            News and BoolQ) or ``toxicity`` (RealToxicityPrompts and Civil Comments).
        held_out_chars: Text of each domain, drawn after that of the candidates, that nothing
            is trained on; perplexity is taken of it.
        revisions: Full commit hash to use by data set id. Where none is given, the
            newest is resolved at first use and recorded in ``<path>/revisions.json``.
    """

    path: str = "artifacts/hub"
    domains: tuple[str, ...] = ()
    chars_per_domain: int = 1_000_000_000
    seed: int = 0
    shuffle_buffer: int = 10_000
    suite: str = "glue"
    held_out_chars: int = 0
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
        if self.held_out_chars < 0:
            raise ValueError(f"held_out_chars must not be negative, not {self.held_out_chars}")
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
            "candidates": {domain: self.corpus_recipe(domain) for domain in self.domains},
            "tasks": {task: self._task_recipe(task, "*") for task in self.tasks()},
        }

    def tasks(self) -> list[str]:
        """Name the tasks of the suite."""
        return sorted(self._rows)

    @property
    def _rows(self) -> Mapping[str, Mapping[str, int]]:
        """Published rows of every split of the suite."""
        rows = {
            "glue": GLUE_ROWS,
            "domain": DOMAIN_ROWS,
            "zeroshot": ZERO_SHOT_ROWS,
            "toxicity": TOXICITY_ROWS,
        }
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
        return splits + [self.domain_file(domain) for domain in self.domains]

    # The two kinds of file ----------------------------------------------------------

    def _task_recipe(self, task: str, split: str) -> dict[str, Any]:
        if self.suite == "domain":
            return self._copied(task) | {"task": task, "split": split}
        if self.suite in ("zeroshot", "toxicity"):
            dataset = (ZERO_SHOT if self.suite == "zeroshot" else TOXICITY)[task]
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
        if is_kept(path, recipe):
            return path
        dataset, revision = recipe["dataset"], recipe["revision"]
        with _reaching(dataset, f"task {task}", self.path):
            if self.suite == "domain":
                table = read_copy(task, dataset, split, revision)
            else:
                rows = _load(dataset, recipe.get("config"), split, revision, streaming=False)
                table = rows.with_format("arrow")[:]
        if self.suite == "toxicity":
            table = (as_rated if task == "realtoxicityprompts" else as_comments)(table)
        if "answer" in table.column_names:  # BoolQ's label is a truth value
            table = table.append_column("label", table["answer"].cast(pa.int64()))
        expected = self._rows[task][split]
        if table.num_rows != expected:
            raise ValueError(
                f"{dataset} {task}/{split} has {table.num_rows} rows, published are {expected}; "
                "pin another revision of it"
            )
        keep(path, recipe, table.schema, [table])
        return path

    def corpus_recipe(self, domain: str) -> dict[str, Any]:
        """Return data set, revision and sampling of a domain, as its file records them."""
        corpus = CORPORA[domain]
        return {
            "dataset": corpus.dataset,
            "config": corpus.config,
            "columns": list(corpus.columns),
            "revision": self._revision(corpus.dataset, f"domain {domain}"),
            "chars": self.chars_per_domain,
            **({"held_out_chars": self.held_out_chars} if self.held_out_chars else {}),
            "seed": self.seed,
            "shuffle_buffer": self.shuffle_buffer,
        }

    def domain_file(self, domain: str) -> Path:
        """Return the file of a domain, fetched on first use: candidates, then text held out."""
        path = Path(self.path) / "candidates" / f"{domain}.parquet"
        recipe = self.corpus_recipe(domain)
        if is_kept(path, recipe):
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
        texts = texts_of(_reached(iter(stream), corpus.dataset, domain, self.path), domain, corpus)
        schema = pa.schema([(name, pa.string()) for name in ("id", "text", "domain")])
        parts = {"chars_per_domain": self.chars_per_domain, "held_out_chars": self.held_out_chars}
        keep(path, recipe, schema, drawn(texts, domain, parts))
        return path

    # Revisions ----------------------------------------------------------------------

    def _revision(self, dataset: str, what: str) -> str:
        """Give the commit to read: the pinned one, the recorded one, or the newest."""
        known = self.revisions.get(dataset) or recorded(self._record).get(dataset)
        if known is not None:
            return known
        from huggingface_hub import HfApi

        with _reaching(dataset, what, self.path):
            newest = HfApi().dataset_info(dataset).sha
        if newest is None:
            raise SourceUnavailable(f"the hub names no revision of {dataset}; pin one")
        return remember(self._record, dataset, newest)

    @property
    def _record(self) -> Path:
        return Path(self.path) / "revisions.json"

    def _known(self) -> set[str]:
        """Name the data sets whose commit is pinned or recorded."""
        return {*self.revisions, *recorded(self._record)}


@dataclass(frozen=True)
class DomainPart:
    """The candidates of a domain, or the documents held out, which follow them in its file.

    Args:
        source: The hub source.
        domain: The domain; also the label.
        held_out: Whether these are the documents held out.
    """

    source: Hub
    domain: str
    held_out: bool

    @property
    def label(self) -> str:
        """Name of the domain."""
        return self.domain

    def identity(self) -> dict[str, Any]:
        """Return data set, revision and how its documents are sampled; nothing is fetched.

        Raises:
            SourceUnavailable: If a revision was never recorded and the hub is out of reach.
        """
        return {**self.source.corpus_recipe(self.domain), "held_out": self.held_out}

    def pieces(self) -> Iterator[pa.Table]:
        """Yield tables of ``id``, ``text`` and ``domain``, fetched on first use.

        Raises:
            SourceUnavailable: If the domain is not on this machine and the hub is out of reach.
            ValueError: If the corpus lacks a column or holds less text than asked for.
        """
        path = self.source.domain_file(self.domain)
        chars = 0
        for table in stream(path, Columns(), self.domain):
            taken = pc.cumulative_sum(pc.utf8_length(table["text"]).cast(pa.int64())).to_numpy()
            # A candidate begins before the limit; the last one ends at or after it.
            before = np.concatenate([[0], taken[:-1]]) + chars
            candidates = int(np.searchsorted(before, self.source.chars_per_domain))
            yield table.slice(candidates) if self.held_out else table.slice(0, candidates)
            chars += int(taken[-1])


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
