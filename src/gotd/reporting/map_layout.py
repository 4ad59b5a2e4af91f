"""The drawing of a map: places on the picture, symbols and the legend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gotd.selection_report.map_rows import Point, SelectionMap
from gotd.selection_report.measures import excerpt

WIDTH, HEIGHT, MARGIN = 760, 570, 14
"""Size of the map, in the units of its drawing."""
ALONE_WIDTH = 1180
"""Width of a map that has no list of domains beside it."""

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7")
"""Hues that colour-blind readers can tell apart (Okabe and Ito, 2008); black is the target's."""

OTHERS = "#767676"
POOL, SELECTED = COLOURS[0], COLOURS[3]
"""Of the kinds, where colours stand for no domain."""
NAMED_DOMAINS = 11
"""Domains with an entry of their own: circles and triangles in each of the colours."""

DOMAIN_CHARS = 40


def layout(sampled: SelectionMap, selected: Mapping[str, int]) -> dict[str, Any]:
    """Return what the template of the page draws.

    Args:
        sampled: The map.
        selected: Rows of each domain of the selection.

    Returns:
        ``width`` and ``height``; ``by_kind``, the colours of pool and selection where these stand
        for no domain, else ``None``; for each of ``pool``, ``selected`` and ``target`` its marks in
        the order of drawing; ``colours`` by the number of a domain, and the entries of the
        legend, ``kinds`` and ``domains`` (empty if there is one domain alone).
    """
    pool = sampled.domains
    names = _named(selected, pool)
    has_domains = len(pool) > 1
    width = WIDTH if has_domains else ALONE_WIDTH
    place = _placer([*sampled.pool, *sampled.target, *sampled.selected], width)
    numbers = {name: number for number, name in enumerate(names)} if has_domains else {}
    others = len(numbers)

    def marks(kind: str, points: Sequence[Point]) -> list[dict[str, Any]]:
        return [
            {
                "x": place(point)[0],
                "y": place(point)[1],
                "number": (number := numbers.get(point.domain, others)),
                "symbol": "target-0" if kind == "target" else _symbol(kind, number),
                "label": _label(kind, point, has_domains),
                "text": point.text,
            }
            for point in points
        ]

    colours = [COLOURS[number % len(COLOURS)] for number in range(len(numbers))]
    return {
        "width": width,
        "height": HEIGHT,
        "by_kind": None if has_domains else {"pool": POOL, "selected": SELECTED},
        "pool": marks("pool", sampled.pool),
        "selected": marks("selected", sampled.selected),
        "target": marks("target", sampled.target),
        "colours": [*colours, OTHERS],
        "kinds": _kinds(sampled),
        "domains": _entries(names, selected, pool) if has_domains else [],
    }


def _named(selected: Mapping[str, int], pool: Mapping[str, int]) -> list[str]:
    """Return the domains with the largest shares of selection and pool, added up."""
    totals = max(1, sum(selected.values())), max(1, sum(pool.values()))

    def shares(name: str) -> float:
        return selected.get(name, 0) / totals[0] + pool[name] / totals[1]

    ordered = sorted(pool, key=lambda name: (-shares(name), name))
    # An entry for others is needed only if there are at least two of them.
    return ordered if len(ordered) == NAMED_DOMAINS + 1 else ordered[:NAMED_DOMAINS]


def _entries(
    names: Sequence[str], selected: Mapping[str, int], pool: Mapping[str, int]
) -> list[dict[str, str]]:
    """Return the legend's entries of domains, those without one of their own together."""
    rows = [(excerpt(name, DOMAIN_CHARS), selected.get(name, 0), pool[name]) for name in names]
    if others := len(pool) - len(names):
        chosen, have = (sum(of.values()) for of in (selected, pool))
        of_others = chosen - sum(row[1] for row in rows), have - sum(row[2] for row in rows)
        rows.append((f"{others:,} others", *of_others))
    return [
        {
            "label": label or "no name",
            "symbol": _symbol("selected", number),
            "counts": f"{of_selection:,} / {of_pool:,}",
        }
        for number, (label, of_selection, of_pool) in enumerate(rows)
    ]


def _kinds(sampled: SelectionMap) -> list[dict[str, str]]:
    """Return the legend's entries of kinds, with how many rows of each are shown."""
    shown = (sampled.target, sampled.selected, sampled.pool)
    totals = (sampled.rows[1], sampled.rows[2], sampled.rows[0])
    kinds = (("target", "target"), ("selected", "chosen"), ("pool", "pool"))
    return [
        {"name": name, "symbol": f"{name}-0", "label": f"{word} ({len(points):,} of {total:,})"}
        for (name, word), points, total in zip(kinds, shown, totals, strict=True)
    ]


def _symbol(kind: str, number: int) -> str:
    """Return the symbol of a kind in a domain: the colours come once with each shape."""
    return f"{kind}-{number // len(COLOURS) % 2}"


def _label(kind: str, point: Point, has_domains: bool) -> str:
    """Return the first line of what is shown about a mark."""
    parts = [kind if point.rank is None else f"chosen, rank {point.rank:,}"]
    if has_domains and point.domain:
        parts.append(excerpt(point.domain, DOMAIN_CHARS))
    return " · ".join(parts)


def _placer(points: Sequence[Point], width: int) -> Callable[[Point], tuple[float, float]]:
    """Return a function from a point to its place, with one scale for both axes."""
    xs, ys = [point.x for point in points], [point.y for point in points]
    spans = max(xs) - min(xs), max(ys) - min(ys)
    room = width - 2 * MARGIN, HEIGHT - 2 * MARGIN
    scale = min((one / span for one, span in zip(room, spans, strict=True) if span), default=0.0)
    middle = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2

    def place(point: Point) -> tuple[float, float]:
        x, y = point.x - middle[0], point.y - middle[1]
        return round(width / 2 + scale * x, 1), round(HEIGHT / 2 - scale * y, 1)

    return place
