"""How many rows of each domain may be selected: at most, at least, or as a mixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow.compute as pc

from gotd.data.rows import Rows
from gotd.storage.checks import check_at_least
from gotd.storage.printing import listed

ROUNDING = 1e-9
"""Of a sum of shares."""


@dataclass(frozen=True)
class Bounds:
    """Bounds on the domains of a selection.

    Args:
        max_per_domain: Most rows of a domain, its best ones; ``None``: any.
        min_per_domain: Fewest rows of a domain, as far as it has so many; ``None``: any.
        mix: Share of the selection by domain. The other domains have the rest, together;
            none if the shares make 1.

    Raises:
        ValueError: If a number is below 1, the least is above the most, or the shares cannot be.
    """

    max_per_domain: int | None = None
    min_per_domain: int | None = None
    mix: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_at_least(self, 1, "max_per_domain", "min_per_domain")
        most, least = self.max_per_domain, self.min_per_domain
        if most and least and least > most:
            raise ValueError(
                f"--min-per-domain {least} is more than --max-per-domain {most}; lower the first "
                "or raise the second"
            )
        if self.mix and (most or least):
            raise ValueError(
                "a mixture of domains takes no least and no most rows of a domain; give one of them"
            )
        for name, share in self.mix.items():
            if not 0 < share <= 1:
                raise ValueError(f"the share of {name!r} must be above 0% and at most 100%")
        if sum(self.mix.values()) > 1 + ROUNDING:
            raise ValueError(
                f"the shares of the mixture make {100 * sum(self.mix.values()):g} %, more than all"
            )

    def __bool__(self) -> bool:
        return bool(self.max_per_domain or self.min_per_domain or self.mix)

    @property
    def named(self) -> str:
        """Return the bound that is set, for messages."""
        return "max_per_domain" if self.max_per_domain else "the mixture"

    def order(
        self, scores: Sequence[np.ndarray], shards: Sequence[Rows], limit: int
    ) -> list[np.ndarray]:
        """Return numbers that put the rows in the order in which they are selected.

        Rows that the bounds do not admit have infinity. With ``max_per_domain`` the numbers are
        the scores, and walking down the ranking and passing over the domains that are full
        takes the same rows. With ``min_per_domain`` they are the scores, and only ``limit`` rows
        are finite: the best of each domain, and then the best of the others. With a mixture
        every prefix has the shares, to within a row.

        Args:
            scores: Per shard ``[n]`` scores.
            shards: The rows; without domains all are of one.
            limit: Rows that are selected; only ``min_per_domain`` depends on it.

        Returns:
            Per shard ``[n]`` float64; of equal scores the first in the pool come first.

        Raises:
            ValueError: If the fewest rows of all domains are more than ``limit``, or a domain of
                the mixture has no rows.
        """
        every, (codes, names) = np.concatenate(scores).astype(np.float64), _domains(shards)
        if self.mix:
            every = self._mixed(every, codes, names)
        else:
            place = _places(every, codes)
            if self.max_per_domain is not None:
                every[place >= self.max_per_domain] = np.inf
            if self.min_per_domain is not None:
                self._keep_least(every, place, len(names), limit)
        return np.split(every, np.cumsum([len(shard) for shard in shards])[:-1])

    def _keep_least(self, every: np.ndarray, place: np.ndarray, n_domains: int, limit: int) -> None:
        least = self.min_per_domain or 0
        needed = (place < least) & np.isfinite(every)
        if needed.sum() > limit:
            raise ValueError(
                f"min_per_domain {least:,} takes {needed.sum():,} rows of {n_domains:,} domains, "
                f"more than the budget of {limit:,}; lower it or raise the budget"
            )
        others = np.flatnonzero(~needed)
        best_first = others[np.argsort(every[others], kind="stable")]
        every[best_first[limit - int(needed.sum()) :]] = np.inf

    def _mixed(
        self, every: np.ndarray, codes: np.ndarray, names: Sequence[str | None]
    ) -> np.ndarray:
        """Return when each row's turn is: the k-th of a part of share s comes at (k + 1/2) / s."""
        if unknown := [name for name in self.mix if name not in names]:
            known = [name for name in names if name is not None]
            raise ValueError(
                f"the mixture names the domain {unknown[0]!r}, which no candidate has; "
                f"there is: {listed(known, unknown[0])}"
            )
        shares = np.array([*self.mix.values(), 1.0 - sum(self.mix.values())])
        shares[-1] = shares[-1] if shares[-1] > ROUNDING else 0.0
        number: dict[str | None, int] = {name: k for k, name in enumerate(self.mix)}
        part = np.array([number.get(name, len(self.mix)) for name in names])[codes]
        if shares[-1] and not (part == len(self.mix)).any():
            raise ValueError(
                f"the shares of the mixture make {100 * sum(self.mix.values()):g} %, and no other "
                "domain has a candidate; let them make 100 %"
            )
        with np.errstate(divide="ignore", invalid="ignore"):
            turn = (_places(every, part) + 0.5) / shares[part]
            # Where the first part ends, no longer prefix has the shares.
            ends = np.bincount(part, np.isfinite(every), len(shares)) / shares
        turn[~np.isfinite(every) | (turn > np.nanmin(ends))] = np.inf
        return turn


def _places(every: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Return each row's rank among those of its part, from 0: int64 ``[n]``."""
    order = np.lexsort((every, part))
    starts = np.flatnonzero(np.r_[True, np.diff(part[order]) != 0])
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    return place


def _domains(shards: Sequence[Rows]) -> tuple[np.ndarray, list[str | None]]:
    """Return a number for each row's domain over all shards, int64 ``[n]``, and the names."""
    numbers: dict[str | None, int] = {}
    codes = []
    for shard in shards:
        code = np.zeros(len(shard), dtype=np.int64)
        if shard.domains is None:
            code[:] = numbers.setdefault(None, len(numbers))
        else:
            encoded = pc.dictionary_encode(shard.domains, null_encoding="encode")
            names = encoded.dictionary.to_pylist()
            of = [numbers.setdefault(name, len(numbers)) for name in names]
            code[:] = np.array(of, dtype=np.int64)[encoded.indices.to_numpy()]
        codes.append(code)
    return np.concatenate(codes), list(numbers)


def parse_mix(given: Sequence[str]) -> dict[str, float]:
    """Read ``law:30%`` and further shares.

    Raises:
        ValueError: If there is no domain or no share, or a domain is given twice.
    """
    mix: dict[str, float] = {}
    for each in given:
        name, _, share = each.rpartition(":")
        try:
            value = float(share.strip().removesuffix("%")) / (100 if "%" in share else 1)
        except ValueError:
            value = np.nan
        if not name or not np.isfinite(value):
            raise ValueError(f"--mix takes DOMAIN:SHARE, such as law:30%, not {each[:60]!r}")
        if name in mix:
            raise ValueError(f"--mix names the domain {name!r} twice")
        mix[name] = value
    return mix
