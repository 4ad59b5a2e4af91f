"""The map of a selection: which vectors its rows have."""

from __future__ import annotations

from gotd.pipeline.select import Prepared
from gotd.selection_report.map_rows import SelectionMap, selection_map


def map_of(prepared: Prepared, budget: int) -> SelectionMap | None:
    """Return the map of the first ``budget`` rows.

    Args:
        prepared: The scored request.
        budget: Rows that are selected.

    Returns:
        The map; ``None`` if the run embedded nothing and fitted no space, so that a map would
        cost more than the selection.
    """
    request, ranked = prepared.request, prepared.ranked
    return selection_map(
        ranked.best,
        budget,
        ranked.candidates,
        ranked.target,
        space=request.encoder.name,
        domains=ranked.pool["domains"],
        embed=prepared.embed if "encoder" in prepared.steps else None,
        length_chars=request.length_chars,
    )
