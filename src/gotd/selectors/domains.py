"""Domains of the pool: which are near the target, and the rows that belong to them.

GOT-D first selects the two to four domains nearest to the target and ranks only their
rows. ``screen`` measures a small sample of each domain by entropic transport.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.rows import Rows
from gotd.data.sampling import uniform_by_id
from gotd.engine.local import Engine, LocalEngine
from gotd.storage.printing import listed
from gotd.storage.work import Work

ROLE, READER = "domains", "domain screening"
"""Role of the random numbers, and the name in messages."""

SAME_POINT = 1e-12
"""Costs under this share of the target's mean square are rounding of float32."""

SAMPLE_ROWS = 10_000
"""Rows measured per domain (paper, App. C.3; its code: 20,000)."""

TYPICAL_DOMAINS, SCREEN_PASSES = 7, 4
"""Domains of the paper's pool, and passes over a sample in one solve, for `screen_work`."""

MOST_RUNS = 64
"""A shard whose rows of some domains form more runs than this is copied, not sliced."""


@dataclass(frozen=True)
class DomainDistance:
    """Distance of a domain from the target.

    Args:
        domain: The domain.
        distance: Entropic transport cost between target and sample, in cost units
            (squared embedding units).
        rows: Candidates of the domain in the pool.
        sampled: Candidates that were measured.
        marginal_error: Certificate of the solve.
    """

    domain: str
    distance: float
    rows: int
    sampled: int
    marginal_error: float


def screen(
    target: Rows,
    candidates: Sequence[Rows],
    *,
    epsilon: float,
    tolerance: float,
    sample: int = SAMPLE_ROWS,
    seed: int = 0,
    engine: Engine | None = None,
) -> list[DomainDistance]:
    """Rank the pool's domains by their transport distance to the target.

    The distance is ``OT_eps(target, domain)`` with uniform masses and squared
    Euclidean cost. All domains share one epsilon in cost units, so that a distant domain
    is not smoothed more than a near one.

    It is not debiased: of two domains with the same mean the more varied one has the
    larger distance. A domain with fewer rows than ``sample`` is measured on all of
    them, and the distance of a small sample is slightly too large.

    Args:
        target: Target rows with embeddings.
        candidates: Shards with embeddings and domains.
        epsilon: Regularisation as a share of the mean cost over all domains.
        tolerance: Marginal error (L1) at which a solve counts as converged.
        sample: Rows measured per domain.
        seed: Seed of the samples, a hash of (seed, id).
        engine: Maps over shards; this machine, one shard at a time, when ``None``.

    Returns:
        One entry per domain, nearest first, ties by name.

    Raises:
        ValueError: If embeddings or domains are missing.
        NotConverged: If a solve misses its tolerance.

    Source: GOT-D (ICLR 2024) App. C.3, the domain relevance test.
    """
    # Imported here, so that selectors which only read domain names do not load torch.
    from gotd.transport.blocks import Compute, Stream
    from gotd.transport.problem import Problem
    from gotd.transport.semidual import solve_semidual

    if target.embeddings is None or any(shard.embeddings is None for shard in candidates):
        raise ValueError("domain screening needs embeddings of target and candidates")
    samples = _sample_domains(candidates, sample, seed, engine or LocalEngine())
    goal = np.asarray(target.embeddings, dtype=np.float32)
    here = partial(Compute, device="cpu")  # samples are small, so a GPU gains nothing
    streams = [Stream(Problem(goal, [rows]), here("float64")) for rows, _, _ in samples.values()]
    mean_cost = float(np.mean([stream.mean_cost() for stream in streams]))
    all_texts_are_the_same = mean_cost <= SAME_POINT * float(np.square(goal).sum(axis=1).mean())
    distances = []
    for domain, (rows, priority, n_rows) in samples.items():
        distance, error = 0.0, 0.0
        if not all_texts_are_the_same:
            problem = Problem(goal, [rows], epsilon=epsilon * mean_cost, epsilon_is="absolute")
            solved = solve_semidual(problem, [priority], tolerance=tolerance, compute=here())
            distance, error = solved.value, solved.marginal_error
        distances.append(DomainDistance(domain, distance, n_rows, len(rows), error))
    return sorted(distances, key=lambda row: (row.distance, row.domain))


def screen_work(n_candidates: int, n_targets: int, width: int) -> Work:
    """Return the work of `screen` for a pool of `TYPICAL_DOMAINS` domains."""
    rows = min(n_candidates, TYPICAL_DOMAINS * SAMPLE_ROWS)
    return Work(
        flops=2.0 * rows * n_targets * width * SCREEN_PASSES,
        memory_bytes=4 * rows * (width + n_targets / TYPICAL_DOMAINS),
    )


def only_domains(pool: Sequence[Rows], domains: Sequence[str], least: int) -> list[Rows]:
    """Select the rows of some domains, as contiguous runs that copy no embeddings.

    A pool read from one file after another has few runs, and their embeddings remain on
    disk. A shard with more than `MOST_RUNS` runs is copied.

    Args:
        pool: Shards with domains.
        domains: The domains.
        least: The fewest rows that must be left.

    Raises:
        ValueError: If fewer are left, or a domain is nowhere in the pool.
    """
    runs: list[Rows] = []
    for shard, rows in zip(pool, rows_in_domains(pool, domains, READER), strict=True):
        parts = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
        if len(parts) > MOST_RUNS:
            parts = [rows]
        runs += [shard.take(part) for part in parts if len(part)]
    left = sum(map(len, runs))
    if left < least:
        raise ValueError(
            f"the domains nearest to the target ({listed(domains)}) have {left:,} candidates, "
            f"fewer than the {least:,} to rank; raise candidates.screen or lower the budget"
        )
    return runs


def domains_of(shard: Rows, reader: str) -> pa.Array:
    """Return the shard's domains as strings.

    Args:
        shard: Rows with domains.
        reader: Name of the caller, for the message.

    Raises:
        ValueError: If the shard has no domains or a row has none.
    """
    if shard.domains is None:
        raise ValueError(f"{reader}: the candidates have no domains; add a `domain` column")
    if shard.domains.null_count:
        row = shard.ids.filter(pc.is_null(shard.domains))[0].as_py()
        raise ValueError(f"{reader}: candidate {row!r} has no domain; add one or drop the row")
    return shard.domains.cast(pa.string())


def domain_names(candidates: Sequence[Rows], reader: str) -> list[str]:
    """List the pool's domains, sorted.

    Args:
        candidates: Shards with domains.
        reader: Name of the caller, for the message.
    """
    arrays = [domains_of(shard, reader) for shard in candidates]
    return sorted({name for array in arrays for name in pc.unique(array).to_pylist()})


def rows_in_domains(
    candidates: Sequence[Rows], domains: Sequence[str], reader: str
) -> list[np.ndarray]:
    """List, per shard, the positions of the rows that belong to ``domains``.

    Args:
        candidates: Shards with domains.
        domains: The domains.
        reader: Name of the caller, for the message.

    Raises:
        ValueError: If a shard has no domains or a domain is nowhere in the pool.
    """
    known = domain_names(candidates, reader)
    missing = sorted(set(domains) - set(known))
    if missing:
        raise ValueError(f"{reader}: the pool has no domain {missing[0]!r}, only {known}")
    wanted = pa.array(list(domains), type=pa.string())
    return [
        np.flatnonzero(pc.is_in(domains_of(shard, reader), value_set=wanted))
        for shard in candidates
    ]


def _sample_domains(
    candidates: Sequence[Rows], sample: int, seed: int, engine: Engine
) -> dict[str, tuple[np.ndarray, np.ndarray, int]]:
    """Draw up to ``sample`` rows of every domain, in the order of their random numbers.

    Returns:
        By domain: the sample's embeddings and numbers, and the rows that the domain has.
    """
    from gotd.selectors.neighbours import gather

    chance = engine.map(lambda shard: uniform_by_id(shard.ids, seed, ROLE), candidates)
    numbers = np.concatenate(list(chance))
    names = pa.chunked_array([domains_of(shard, READER) for shard in candidates], pa.string())
    samples = {}
    for domain in domain_names(candidates, READER):
        rows = np.flatnonzero(pc.equal(names, domain))
        first = rows[np.argsort(numbers[rows])[:sample]]
        samples[domain] = gather(candidates, first), numbers[first], len(rows)
    return samples
