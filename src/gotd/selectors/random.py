"""Candidates at random: the arms every other arm must beat.

``Random`` draws from the whole pool, ``RandomInDomain`` from one domain (domain-
adaptive pre-training at equal budget), ``AllDomains`` the same number of rows from
every domain. Chance is a hash of (seed, id), so a budget is a prefix of a larger one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gotd.data.rows import Rows
from gotd.data.sampling import uniform_by_id
from gotd.engine.local import Engine
from gotd.selectors.base import Ranking, Scores, check_request, place, rank_by_scores, smallest
from gotd.selectors.domains import domain_names, ids_in_domains, screen


@dataclass(frozen=True)
class Random:
    """Draw from the whole pool, every candidate alike, without replacement."""

    key_name: ClassVar[str] = "Random"

    name: ClassVar[str] = "random"
    requires: ClassVar[frozenset[str]] = frozenset()

    def rank(
        self, target: Rows, candidates: Sequence[Rows], limit: int, seed: int, engine: Engine
    ) -> Ranking:
        """Rank by a uniform number per id; the score is that number.

        Raises:
            ValueError: If the request cannot be met (see ``check_request``).
        """
        return rank_by_scores(self, target, candidates, limit, seed, engine)

    def scores(
        self,
        target: Rows,
        candidates: Sequence[Rows],
        seed: int,
        engine: Engine,
        out: Sequence[np.ndarray] | None = None,
    ) -> Scores:
        """Give every candidate a uniform number, a hash of (seed, id).

        Raises:
            ValueError: If there is no target or no candidate.
        """
        check_request(self, target, candidates, 1)
        chance = engine.map(partial(_chance, seed, self.name), candidates)
        return Scores(place(chance, candidates, out))


@dataclass(frozen=True)
class RandomInDomain:
    """Draw from one domain: domain-adaptive pre-training (DAPT) at equal budget.

    Args:
        domain: The domain to draw from. ``None`` takes the domain whose sample is
            nearest to the target in entropic transport distance (``domains.screen``),
            which needs embeddings; with a name they are not read.

    Source: GOT-D (ICLR 2024) App. C.5, the DAPT rows of Tables 2 and 3.
    """

    key_name: ClassVar[str] = "RandomInDomain"

    domain: str | None = None

    name: ClassVar[str] = "random_in_domain"
    requires: ClassVar[frozenset[str]] = frozenset({"domains", "embeddings"})

    def rank(
        self, target: Rows, candidates: Sequence[Rows], limit: int, seed: int, engine: Engine
    ) -> Ranking:
        """Rank the domain's rows by a uniform number per id; that is the score.

        Raises:
            ValueError: If no domains are given, the domain is not in the pool or
                holds fewer than ``limit`` rows, or ``domain`` is ``None`` and
                there are no embeddings.
        """
        check_request(Random(), target, candidates, limit)
        diagnostics: dict[str, object] = {"domain": self.domain}
        domain = self.domain
        if domain is None:
            check_request(self, target, candidates, limit)
            screened = screen(target, candidates, seed=seed, engine=engine)
            domain = screened[0].domain
            diagnostics = {
                "domain": domain,
                "distances": {row.domain: row.distance for row in screened},
            }
        ids = ids_in_domains(candidates, (domain,), self.name)
        found = sum(map(len, ids))
        if found < limit:
            raise ValueError(
                f"{self.name}: domain {domain!r} holds {found:,} candidates, fewer than the "
                f"budget {limit:,}; lower the budget or name another domain"
            )
        return Ranking(*draw(ids, limit, seed, self.name, engine), diagnostics=diagnostics)


@dataclass(frozen=True)
class AllDomains:
    """Draw the same number of rows from every domain.

    In turn, each domain gives one random row; a domain that is used up drops out.
    The score is the turn plus a uniform number in (0, 1) that orders the domains
    within the turn.

    Source: GOT-D (ICLR 2024) App. C.5, the "All domains" rows of Table 2.
    """

    key_name: ClassVar[str] = "AllDomains"

    name: ClassVar[str] = "all_domains"
    requires: ClassVar[frozenset[str]] = frozenset({"domains"})

    def rank(
        self, target: Rows, candidates: Sequence[Rows], limit: int, seed: int, engine: Engine
    ) -> Ranking:
        """Rank by turn over the domains.

        Raises:
            ValueError: If no domains are given or the request cannot be met.
        """
        check_request(self, target, candidates, limit)
        ids: list[pa.Array] = []
        scores: list[np.ndarray] = []
        for domain in domain_names(candidates, self.name):
            rows = ids_in_domains(candidates, (domain,), self.name)
            kept = min(limit, sum(map(len, rows)))
            drawn, chance = draw(rows, kept, seed, self.name, engine)
            ids.append(drawn)
            scores.append(np.arange(kept) + chance)
        return Ranking(*smallest(scores, ids, limit))


def _chance(seed: int, role: str, shard: Rows) -> np.ndarray:
    return uniform_by_id(shard.ids, seed, role)


def draw(
    ids: Sequence[pa.Array], limit: int, seed: int, role: str, engine: Engine
) -> tuple[pa.Array, np.ndarray]:
    """Draw ``limit`` ids without replacement.

    Args:
        ids: Per shard ``[n]`` row ids.
        limit: Rows to draw.
        seed: Seed of the role.
        role: What the chance is for.
        engine: Maps over shards.

    Returns:
        ``[limit]`` ids and their uniform numbers, smallest first.
    """
    chance = list(engine.map(lambda shard_ids: uniform_by_id(shard_ids, seed, role), ids))
    return smallest(chance, ids, limit)
