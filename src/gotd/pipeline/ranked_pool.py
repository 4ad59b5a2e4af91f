"""A scored pool, opened from the artifacts of its steps: any budget is a prefix of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gotd.data.pool import as_one, open_pool, pool_facts, unreadable_rows
from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selection_report.explain import Explainer
from gotd.selection_report.flags import flags
from gotd.selection_report.measures import Measures, coverage, domain_shares
from gotd.selection_report.rows import blocks, embeddings_of, locate
from gotd.selectors.bounds import Bounds
from gotd.selectors.domains import only_domains
from gotd.selectors.topk import Best, smallest_rows
from gotd.storage.memmap import open_array
from gotd.storage.progress import tick
from gotd.transport import Geometry, Whitening
from gotd.transport.proof import count_proven

SIDES = ("target", "candidates")

DOMAINS = "domains.json"
FACTS = "facts.json"
POTENTIAL = "target_potential.npy"
RANKING = "ranking.parquet"
SELECTED = "selection.parquet"


def scores_file(number: int) -> str:
    """Return the name of the file of a shard's scores: float64 ``[n]``."""
    return f"scores-{number:05d}.npy"


def open_pools(
    folders: Mapping[str, Path], least: int = 1, only_readable: bool = True
) -> tuple[Rows, list[Rows]]:
    """Open target and candidates, with their embeddings where there are some.

    Args:
        folders: Folder of the step ``candidates``, and where they exist ``target``,
            ``target_embeddings``, ``candidates_embeddings``, ``kept`` and ``screened``.
        least: Candidates that the screened domains must hold.
        only_readable: Leave out the rows that the encoder could not read.

    Raises:
        ValueError: If they hold fewer.
    """
    embedded = {side: folders.get(f"{side}_embeddings") for side in SIDES}
    target = Rows.none()
    if "target" in folders:
        target = as_one(open_pool(folders["target"], embedded["target"], only_readable))
    pool = folders["candidates"], embedded["candidates"], only_readable
    candidates = open_pool(*pool, kept=folders.get("kept"))
    if "screened" in folders:
        kept = json.loads((folders["screened"] / DOMAINS).read_text("utf-8"))["kept"]
        candidates = only_domains(candidates, kept, least)
    return target, candidates


class RankedPool:
    """A target and its scored candidates; the texts of selected rows alone are read.

    Args:
        folders: Folders of the steps, as for `open_pools`, and ``scored``.
        limit: The largest budget; ``None``: all rows that were ranked.
        engine: Maps over shards.
        embeds: Whether the selector read the embeddings, so that rows which the encoder
            could not read did not compete.
        at_most: Rows to which the limit is lowered if it is higher; ``None``: any.
        bounds: Of domains; the limit is lowered to the rows that they leave. Only for selectors
            that score every row.

    Raises:
        ValueError: If the limit is not in ``[1, candidates]``.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        limit: int | None,
        engine: Engine,
        embeds: bool,
        at_most: int | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        self.folders, self.engine, self.embeds = folders, engine, embeds
        self.target, self.candidates = open_pools(folders, limit or 1, only_readable=embeds)
        self.pool = pool_facts(folders.get("kept", folders["candidates"]))
        self._ranking = None
        if (folders["scored"] / RANKING).exists():
            self._ranking = pq.read_table(folders["scored"] / RANKING).slice(0, limit)
        rows = sum(map(len, self.candidates))
        if limit is not None and not 1 <= limit <= rows:
            raise ValueError(
                f"the budget must be at least 1 and at most the pool of {rows:,} candidates, "
                f"not {limit:,}; change it or add candidates"
            )
        self.limit = limit or (rows if self._ranking is None else self._ranking.num_rows)
        self.limit = min(self.limit, at_most or self.limit)
        self._order = None
        if bounds and self._ranking is None:
            self._order = bounds.order(self._scores(), self.candidates, self.limit)
            left = sum(int(np.isfinite(turns).sum()) for turns in self._order)
            self.limit = min(self.limit, left)

    @cached_property
    def outcome(self) -> dict[str, Any]:
        """Return what the selector reported, and the rows that did not compete.

        Returns:
            ``diagnostics``, ``with_replacement`` and ``unreadable_rows`` by side: rows that
            the selector's encoder could not read.
        """
        facts = json.loads((self.folders["scored"] / FACTS).read_text("utf-8"))
        counts = {
            side: unreadable_rows(self.folders[f"{side}_embeddings"]) if self.embeds else None
            for side in SIDES
        }
        return {**facts, "unreadable_rows": {side: sum(n or []) for side, n in counts.items()}}

    @property
    def potential(self) -> np.ndarray | None:
        """Return the price of each target, float64 ``[m]``, where the selector has prices."""
        path = self.folders["scored"] / POTENTIAL
        return np.load(path) if path.exists() else None

    @cached_property
    def best(self) -> Best:
        """Return the first ``limit`` rows, best first."""
        if self._ranking is None:
            scores, ids = self._scores(), [shard.ids for shard in self.candidates]
            found = smallest_rows(self._order or scores, ids, self.limit, self.engine)
            own = np.empty(len(found.scores))  # not the turns of a mixture
            for number in np.unique(found.shard):
                here = found.shard == number
                own[here] = scores[number][found.row[here]]
            return replace(found, scores=own)
        ids = self._ranking["id"].combine_chunks()
        return locate(ids, self._ranking["score"].to_numpy(), self.candidates, self.engine)

    def proven(self, budget: int) -> dict[str, Any] | None:
        """Return how many of the first ``budget`` rows are surely among the exact best.

        Returns:
            ``rows`` and ``share`` of the selection that are proven; of all candidates, the
            rows that are ``left`` open and the ``ties``, which rounding cannot tell from the
            boundary. ``None`` where the selector does not bound its error, or domains are
            bounded, so that the best rows are not the selection.
        """
        facts = self.outcome["diagnostics"]
        error = facts.get("score_uncertainty")
        if self._ranking is not None or self._order is not None or error is None:
            return None
        found = count_proven(self._scores(), budget, error, facts["score_rounding"])
        share = found.inside / budget
        return {"rows": found.inside, "share": share, "left": found.left, "ties": found.ties}

    def _scores(self) -> list[np.ndarray]:
        """Open the scores of each shard."""
        folder = self.folders["scored"]
        return [open_array(folder / scores_file(n)) for n in range(len(self.candidates))]

    def texts(self) -> Iterator[list[str]]:
        """Yield the texts of the first ``limit`` rows, best first, block by block."""
        for block in blocks(self.best, self.candidates, self.limit):
            tick(len(block))
            yield block["text"].to_pylist()

    def explainer(self, selector: Any, target: Rows | None = None) -> Explainer:
        """Build what attributes selected rows to targets, by the costs of the selector.

        Args:
            selector: The selector that scored the pool.
            target: The target with embeddings, where the pool has none.
        """
        whitening = None
        if getattr(selector, "whiten", False):
            whitening = Whitening.fit([np.asarray(shard.embeddings) for shard in self.candidates])
        geometry = Geometry(getattr(selector, "cost", "squared_euclidean"), whitening)
        if self.potential is None:
            return Explainer(target or self.target, geometry)
        epsilon = self.outcome["diagnostics"]["epsilon_absolute"]
        return Explainer(target or self.target, geometry, self.potential, epsilon)


@dataclass
class SelectedRows:
    """The rows of one budget, read block by block, and their measures.

    Args:
        ranked: The scored pool.
        budget: Rows to take, ``ranked.limit`` at most.
        explainer: Attributes each row to a target.
        embed: Embeds the texts of selected rows for the explainer, where the pool has no
            embeddings.

    Raises:
        ValueError: If the budget is not in ``[1, ranked.limit]``.
    """

    ranked: RankedPool
    budget: int
    explainer: Explainer | None = None
    embed: Callable[[Sequence[str]], np.ndarray] | None = None

    def __post_init__(self) -> None:
        limit, self._measures = self.ranked.limit, Measures()
        if not 1 <= self.budget <= limit:
            raise ValueError(f"the budget must be in [1, {limit:,}], not {self.budget:,}")

    def blocks(self) -> Iterator[pa.Table]:
        """Yield tables of the rows, best first, and count them for `summary`.

        Columns are ``id``, ``text``, ``score`` (lower was selected first), ``rank`` (from
        1) and ``domain``; with an explainer also ``target_id`` and ``target_share``.
        """
        self._measures = Measures()
        start = 0
        for block in blocks(self.ranked.best, self.ranked.candidates, self.budget):
            self._measures.add(block)
            if self.explainer is not None:
                ids, share = self.explainer(self._vectors(start, block))
                block = block.append_column("target_id", ids)
                block = block.append_column("target_share", pa.array(share))
            start += len(block)
            yield block

    def write(self, path: Path) -> None:
        """Write the rows to a Parquet file, block by block."""
        writer = None
        try:
            for block in self.blocks():
                writer = writer or pq.ParquetWriter(path, block.schema, compression="zstd")
                writer.write_table(block)
        finally:
            if writer is not None:
                writer.close()

    def summary(self, seed: int, under_covered: Sequence[str] = ()) -> dict[str, Any]:
        """Return the measures of the rows that `blocks` read.

        Args:
            seed: Seed of the random selection beside which coverage is reported.
            under_covered: Domains that the base model lacks, where known.

        Returns:
            What `Measures.summary` returns, with ``target_copies`` (rows with the text of a
            target, `Measures.copies_of`), ``coverage``, ``proven``
            (`RankedPool.proven`), ``targets`` (what each target received; ``None`` without
            an explainer), by side ``pool_rows`` and
            ``short_rows`` (texts that were left out because they are too short), and
            ``flags`` (`gotd.selection_report.flags.flags`).
        """
        ranked = self.ranked
        pools = {side: pool_facts(ranked.folders[side]) for side in SIDES}
        summary = self._measures.summary(ranked.pool, domain_shares(ranked.target), under_covered)
        summary["target_copies"] = self._measures.copies_of(ranked.target)
        summary["coverage"] = coverage(
            ranked.best, self.budget, ranked.candidates, ranked.target, seed
        )
        summary["proven"] = ranked.proven(self.budget)
        summary["targets"] = None if self.explainer is None else self.explainer.summary()
        summary["pool_rows"] = {side: sum(pool["rows"]) for side, pool in pools.items()}
        summary["short_rows"] = {side: pool.get("short_rows", 0) for side, pool in pools.items()}
        summary["flags"] = flags({**summary, **ranked.outcome})
        return summary

    def _vectors(self, start: int, block: pa.Table) -> np.ndarray:
        """Return the embeddings of a block whose first row has rank ``start`` + 1."""
        if self.ranked.candidates[0].embeddings is not None:
            where = self.ranked.best.where[start : start + len(block)]
            return embeddings_of(self.ranked.candidates, where)
        assert self.embed is not None
        return self.embed(block["text"].to_pylist())
