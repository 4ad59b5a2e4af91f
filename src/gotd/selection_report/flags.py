"""Signs that a selection is degenerate, found in its measures alone.

A flag is no error: one domain may be what the target needs. It says what to look at before
selections are compared at an equal budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

SHORT, REPEATED, UNREADABLE, ONE_DOMAIN = "short", "repeated", "unreadable", "one domain"
"""Names of the flags."""

SHORT_BELOW = 0.5
"""Least median length of the selection, as a share of the pool's."""
REPEATED_ABOVE = 0.1
"""Most rows whose text an earlier row has, as a share of the selection."""
UNREADABLE_ABOVE = 0.1
"""Most rows of the target, or of the pool, that the encoder cannot read, as a share."""
ONE_DOMAIN_FROM = 0.9
"""Share of one domain in the selection, or in the target, from which it is all but alone."""
MIXED_POOL_UP_TO = 0.5
"""Share of that domain in the pool up to which the pool is mixed."""

EXPLAINED = {
    SHORT: f"the median length is below {SHORT_BELOW:g} of the pool's",
    REPEATED: f"more than {100 * REPEATED_ABOVE:g} % of the rows repeat the text of another row",
    UNREADABLE: f"the encoder cannot read more than {100 * UNREADABLE_ABOVE:g} % of the target or "
    "of the pool",
    ONE_DOMAIN: f"one domain has {100 * ONE_DOMAIN_FROM:g} % of the rows or more, but at most "
    f"{100 * MIXED_POOL_UP_TO:g} % of the pool, and is not known to be the target's",
}
"""What each flag says, for the notes of tables."""


def flags(report: Mapping[str, Any], named: Callable[[str], str] = str) -> dict[str, str]:
    """Return the flags of a selection, each with one sentence.

    Args:
        report: The selection's measures, as `gotd.pipeline.ranked_pool.SelectedRows.summary`
            returns them. What an older report lacks is not looked at.
        named: Returns how the name of a domain is shown.
    """
    found = {
        SHORT: _short(report),
        REPEATED: _repeated(report),
        UNREADABLE: _unreadable(report),
        ONE_DOMAIN: _one_domain(report, named),
    }
    return {name: sentence for name, sentence in found.items() if sentence}


def distinct_texts(report: Mapping[str, Any]) -> int | None:
    """Return the number of distinct texts; ``None`` where a report does not count them."""
    repeated = report.get("duplicate_texts")
    return None if repeated is None else report["distinct_rows"] - repeated


def _short(report: Mapping[str, Any]) -> str:
    if "length_chars" in report:
        lengths = report["length_chars"]
    else:  # an older report
        lengths = {side: of["chars"] for side, of in report.get("lengths", {}).items()}
    if not lengths:
        return ""
    median, pool = lengths["selected"]["q50"], lengths["pool"]["q50"]
    if median >= SHORT_BELOW * pool:
        return ""
    return (
        f"The median length is {median:,.0f} characters, but {pool:,.0f} in the pool: at an equal "
        "number of rows this is less text."
    )


def _repeated(report: Mapping[str, Any]) -> str:
    distinct, rows = distinct_texts(report), report["rows"]
    if distinct is None or rows - distinct <= REPEATED_ABOVE * rows:
        return ""
    return (
        f"{rows - distinct:,} of {rows:,} rows repeat the text of another one, so there is less "
        "to learn from than the budget says."
    )


def _unreadable(report: Mapping[str, Any]) -> str:
    totals = report.get("pool_rows") or {}
    shares = {
        side: (count, totals[side])
        for side, count in (report.get("unreadable_rows") or {}).items()
        if count > UNREADABLE_ABOVE * totals.get(side, count)
    }
    counts = " and ".join(f"{n:,} of {of:,} rows of the {side}" for side, (n, of) in shares.items())
    return counts and f"The encoder knows no word of {counts}, so they had no influence."


def _one_domain(report: Mapping[str, Any], named: Callable[[str], str]) -> str:
    domains, rows = report.get("domains") or {}, report["rows"]
    name = max(domains, key=domains.__getitem__, default=None)
    expected = (report.get("expected_domains") or {}).get(name)
    if name is None or expected is None:
        return ""
    share, pool = domains[name] / rows, expected / rows
    target = (report.get("target_domains") or {}).get(name)
    is_mixed = share >= ONE_DOMAIN_FROM and pool <= MIXED_POOL_UP_TO
    if not is_mixed or (target or 0.0) >= ONE_DOMAIN_FROM:
        return ""
    known = "" if target is None else f" and {100 * target:.0f} % of the target"
    return (
        f"{100 * share:.0f} % of the rows are of {named(name)}, which is {100 * pool:.0f} % of the "
        f"pool{known}; that is right only if the target needs nothing else."
    )
