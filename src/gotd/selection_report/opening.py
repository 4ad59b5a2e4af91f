"""The first three sentences of a report: what was chosen, how it differs, what looks wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

VERY_SHORT_CHARS = 20
"""A selection of which 5 % of the rows have fewer characters is named."""
UNSERVED_ABOVE = 0.25
"""Share of the targets from which those with under a tenth of an equal share are named."""
NAMED_DOMAINS = 3
NOTHING_WRONG = (
    "Nothing looks wrong in the measures below; that does not say whether it helps a model."
)


Named = Callable[[str], str]


def opening(
    manifest: Mapping[str, Any], summary: Mapping[str, Any], named: Named = str
) -> list[str]:
    """Return the three sentences.

    Args:
        manifest: What is recorded about the run.
        summary: What was chosen (`SelectedRows.summary`), for the largest budget.
        named: Returns how the name of a method or domain is shown.
    """
    return [
        _selected(manifest, summary, named),
        _difference(summary, named),
        _concerns(manifest, summary),
    ]


def _selected(manifest: Mapping[str, Any], summary: Mapping[str, Any], named: Named) -> str:
    rows, read = summary["rows"], manifest["rows"]["candidates"]
    competing = manifest.get("competing_rows", read)
    pool = f"{read:,} candidates"
    if competing < read:
        pool = f"{competing:,} candidates that competed ({read:,} were read)"
    domains = sorted(summary["domains"].items(), key=lambda item: (-item[1], item[0]))
    sources = ", ".join(
        f"{named(name)} ({_percent(n, rows)})" for name, n in domains[:NAMED_DOMAINS]
    )
    more = f" and {len(domains) - NAMED_DOMAINS:,} others" if len(domains) > NAMED_DOMAINS else ""
    return (
        f"{named(manifest['request']['method'])} chose {rows:,} of {pool} for "
        f"{manifest['rows']['target']:,} target texts, from {sources}{more}."
    )


def _difference(summary: Mapping[str, Any], named: Named) -> str:
    parts = []
    if cover := summary.get("coverage"):
        nearer = 100 * (1 - cover["mean_distance"] / max(cover["mean_distance_random"], 1e-12))
        where = "nearer to" if nearer >= 0 else "farther from"
        parts.append(
            f"target texts are {abs(nearer):.0f} % {where} "
            f"their nearest chosen row, and {100 * cover['share_nearer']:.0f} % of them are nearer"
        )
    expected = summary["expected_domains"]
    excess = {name: n - expected.get(name, 0.0) for name, n in summary["domains"].items()}
    if len(expected) > 1 and (name := max(excess, key=lambda one: excess[one])):
        ratio = summary["domains"][name] / max(expected.get(name, 0.0), 1e-12)
        parts.append(f"{named(name)} has {ratio:.1f} times as many rows")
    lengths = summary["length_chars"]
    parts.append(
        f"the median length is {lengths['selected']['q50']:,.0f} characters "
        f"({lengths['pool']['q50']:,.0f} in the pool)"
    )
    return f"Beside a random choice of as many rows: {'; '.join(parts)}."


def _concerns(manifest: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    found = []
    if repeated := summary["rows"] - summary["distinct_rows"] + summary["duplicate_texts"]:
        found.append(f"{repeated:,} rows repeat the text of another one")
    if copies := summary.get("target_copies", 0):
        found.append(
            f"{copies:,} rows have the same text as a target; if the target is a test set, leave "
            "them out (--exclude)"
        )
    if summary["length_chars"]["selected"]["q05"] < VERY_SHORT_CHARS:
        found.append(f"5 % of the rows or more have fewer than {VERY_SHORT_CHARS} characters")
    known = {
        "short": "the rows are much shorter than the pool's",
        "unreadable": "the encoder cannot read a large part of the texts",
        "one domain": "nearly all rows come from one domain",
    }
    found += [said for flag, said in known.items() if flag in summary.get("flags", {})]
    if targets := summary.get("targets"):
        unserved = targets["starved_targets"]
        if unserved > UNSERVED_ABOVE * targets["targets"]:
            found.append(f"{unserved:,} of {targets['targets']:,} target texts are hardly served")
    if manifest["diagnostics"].get("converged") is False:
        found.append("the solver has not converged")
    return f"Look at this: {'; '.join(found)}." if found else NOTHING_WRONG


def _percent(count: int, of: int) -> str:
    return f"{100 * count / of:.0f} %"
