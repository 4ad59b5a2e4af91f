"""Random selections: the baselines that every other selector has to beat.

``Random`` draws from the pool, ``RandomInDomain`` from one domain (domain-adaptive
pre-training at equal budget), ``AllDomains`` the same number of rows from every domain.
Random numbers are a hash of (seed, id), so a budget is a prefix of a larger one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gotd.data.rows import Rows
from gotd.data.sampling import uniform_by_id
from gotd.engine.local import Engine
from gotd.selectors.base import (
    READ_ID,
    Out,
    Ranking,
    Scores,
    ScoringSelector,
    Selector,
    fill,
    smallest,
)
from gotd.selectors.domains import domain_names, rows_in_domains, screen, screen_work
from gotd.storage.printing import listed
from gotd.storage.work import Work


@dataclass(frozen=True)
class Random(ScoringSelector):
    """A uniform draw from the pool without replacement."""

    key_name: ClassVar[str] = "Random"
    name: ClassVar[str] = "random"
    reads_target: ClassVar[bool] = False
    weight: ClassVar[str] = "1 for every row: a uniform draw"
    weight_scale: ClassVar[float | None] = np.inf

    def compute_scores(
        self, target: Rows, candidates: Sequence[Rows], seed: int, engine: Engine, out: Out
    ) -> Scores:
        """Score by a uniform number, a hash of (seed, id)."""
        numbers = engine.map(lambda shard: uniform_by_id(shard.ids, seed, "random"), candidates)
        return Scores(fill(out, numbers))

    def work(self, n_candidates: int, n_targets: int, width: int, limit: int) -> Work:
        """Return the work of reading the ids."""
        return Work(texts=READ_ID * n_candidates)


@dataclass(frozen=True)
class RandomInDomain(Selector):
    """A uniform draw from one domain: domain-adaptive pre-training (DAPT) at equal budget.

    Args:
        domain: The domain. ``None``: the one whose sample is nearest to the target in
            entropic transport distance (`domains.screen`), which needs embeddings.
        epsilon: Regularisation of that distance, as a share of the mean cost.
        tolerance: Marginal error (L1) at which its solve counts as converged.

    Source: GOT-D (ICLR 2024) App. C.5, the DAPT rows of Tables 2 and 3.
    """

    key_name: ClassVar[str] = "RandomInDomain"
    name: ClassVar[str] = "random_in_domain"

    domain: str | None = None
    epsilon: float = 0.05
    tolerance: float = 5e-3

    @property
    def requires(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return domains, and embeddings where no domain is given."""
        return frozenset({"domains"} if self.domain else {"domains", "embeddings"})

    @property
    def reads_target(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return whether the domain is found by the target."""
        return self.domain is None

    def compute_ranking(
        self, target: Rows, candidates: Sequence[Rows], limit: int, seed: int, engine: Engine
    ) -> Ranking:
        """Rank the domain's rows by a uniform number per id.

        Raises:
            ValueError: If rows have no domain, or the domain is not in the pool or has
                fewer than ``limit`` rows.
        """
        domain, diagnostics = self.domain, {}
        if domain is None:
            screened = screen(
                target,
                candidates,
                epsilon=self.epsilon,
                tolerance=self.tolerance,
                seed=seed,
                engine=engine,
            )
            domain = screened[0].domain
            diagnostics = {"distances": {row.domain: row.distance for row in screened}}
        names, numbers = draw(candidates, (domain,), limit, seed, self.name, engine)
        return Ranking(names, numbers, diagnostics={"domain": domain, **diagnostics})

    def work(self, n_candidates: int, n_targets: int, width: int, limit: int) -> Work:
        """Return the work of the screening, or of reading the ids."""
        if self.domain is None:
            return screen_work(n_candidates, n_targets, width)
        return Work(texts=READ_ID * n_candidates)


@dataclass(frozen=True)
class AllDomains(Selector):
    """A uniform draw of the same number of rows from every domain.

    In every turn each domain contributes one random row; an exhausted domain drops out.
    The score is the turn plus a uniform number in (0, 1) that orders the domains
    within the turn.

    Source: GOT-D (ICLR 2024) App. C.5, the "All domains" rows of Table 2.
    """

    key_name: ClassVar[str] = "AllDomains"
    name: ClassVar[str] = "all_domains"
    requires: ClassVar[frozenset[str]] = frozenset({"domains"})
    reads_target: ClassVar[bool] = False

    def compute_ranking(
        self, target: Rows, candidates: Sequence[Rows], limit: int, seed: int, engine: Engine
    ) -> Ranking:
        """Rank by turn over the domains.

        Raises:
            ValueError: If rows have no domain.
        """
        chosen = [
            draw(candidates, (domain,), limit, seed, self.name, engine, exactly=False)
            for domain in domain_names(candidates, self.name)
        ]
        scores = [np.arange(len(numbers)) + numbers for _, numbers in chosen]
        return Ranking(*smallest(scores, [ids for ids, _ in chosen], limit))


def draw(
    candidates: Sequence[Rows],
    domains: Sequence[str],
    limit: int,
    seed: int,
    role: str,
    engine: Engine,
    *,
    exactly: bool = True,
) -> tuple[pa.Array, np.ndarray]:
    """Draw ids of some domains without replacement.

    Args:
        candidates: Shards with domains.
        domains: The domains.
        limit: Rows to draw.
        seed: Seed of the role.
        role: Purpose of the random numbers; each role has numbers of its own.
        engine: Maps over shards.
        exactly: Whether fewer rows than ``limit`` are an error.

    Returns:
        Ids and their uniform numbers, smallest first.

    Raises:
        ValueError: If a row has no domain, a domain is nowhere in the pool, or the domains
            have fewer rows.
    """
    members = rows_in_domains(candidates, domains, role)
    ids = [shard.ids.take(pa.array(m)) for shard, m in zip(candidates, members, strict=True)]
    numbers = engine.map(lambda shard_ids: uniform_by_id(shard_ids, seed, role), ids)
    rows = sum(map(len, ids))
    if exactly and rows < limit:
        raise ValueError(
            f"{role}: {listed(domains)} has {rows:,} candidates, fewer than the {limit:,} "
            "to select; lower the budget, name other domains or enlarge the pool"
        )
    return smallest(list(numbers), ids, limit)
