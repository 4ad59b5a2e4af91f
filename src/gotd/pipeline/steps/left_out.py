"""Steps that leave candidates out before they are scored: a list with reasons, then copies.

Embeddings are those of all candidates, so they serve every choice of rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gotd.data.base import Part
from gotd.data.kept import write_kept
from gotd.data.left_out.duplicates import leave_out_duplicates, leave_out_near_duplicates
from gotd.data.left_out.overlap import NGRAM_WORDS, leave_out_overlap
from gotd.data.left_out.record import LeftOut, masks
from gotd.data.left_out.where import WHERE_VERSION, Where, leave_out_filtered
from gotd.data.pool import open_pool, pool_facts
from gotd.engine.local import THIS_PROCESS, Engine
from gotd.storage.artifacts import WORK, Step
from gotd.storage.checks import check_choices


@dataclass(frozen=True)
class LeaveOut:
    """Which candidates are left out before they are scored.

    Args:
        where: Condition that a candidate fulfils (`gotd.data.left_out.where.Where`).
        exclude: Test sets; a candidate shares no word 13-gram with them.
        dedup: Of candidates with the same text, or nearly the same, the first one is left.
    """

    where: str | None = None
    exclude: Sequence[Part] = ()
    dedup: Literal["exact", "near", "off"] = "off"

    def __post_init__(self) -> None:
        check_choices(self, "")
        if self.where is not None:
            Where(self.where)

    @property
    def passes(self) -> int:
        """Return how often the candidates are read."""
        texts = {"exact": 1, "near": 2, "off": 0}[self.dedup]
        return (self.where is not None) + bool(self.exclude) + texts

    @property
    def parameters(self) -> dict[str, Any]:
        """Return what enters a key; empty if nothing is left out."""
        stated: dict[str, Any] = {}
        if self.where is not None:
            stated |= {"where": self.where, "where_version": WHERE_VERSION}
        if self.exclude:
            stated["exclude"] = [part.identity() for part in self.exclude]
            stated["ngram_words"] = NGRAM_WORDS
        if self.dedup != "off":
            stated["dedup"] = self.dedup
        return stated


def left_out(
    pool: Step, rules: LeaveOut, parts: Sequence[Part], engine: Engine = THIS_PROCESS
) -> Step:
    """List the candidates that are left out, each with a reason.

    Args:
        pool: The candidates.
        rules: Which are left out.
        parts: Their sources, which a condition reads again.
        engine: Maps over shards.
    """

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        found = LeftOut(open_pool(inputs["pool"]))
        if rules.where is not None:
            leave_out_filtered(found, Where(rules.where), parts)
        if rules.exclude:
            leave_out_overlap(found, rules.exclude)
        work = folder / WORK
        work.mkdir(parents=True, exist_ok=True)
        if rules.dedup != "off":
            leave_out_duplicates(found, work, engine)
        if rules.dedup == "near":
            leave_out_near_duplicates(found, work)
        found.write(folder)

    def again() -> dict[str, Any]:
        return rules.parameters

    def count(inputs: Mapping[str, Path]) -> int:
        return rules.passes * sum(pool_facts(inputs["pool"])["rows"])

    inputs = {"pool": pool}
    return Step("left_out", 1, pool.name, again(), build, inputs, rows=count, again=again)


def kept(inputs: Mapping[str, Step], engine: Engine = THIS_PROCESS) -> Step:
    """Copy the candidates that are left, where a shard has others.

    Args:
        inputs: The steps ``pool`` and ``left_out``, and ``embeddings`` where there are some.
        engine: Maps over shards.
    """

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        keep = masks(inputs["left_out"], pool_facts(inputs["pool"])["rows"])
        write_kept(inputs["pool"], folder, keep, inputs.get("embeddings"), engine)

    return Step("kept", 1, inputs["pool"].name, {}, build, dict(inputs))
