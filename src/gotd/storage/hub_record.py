"""Which commit of each repository of the Hub was used: a JSON file that later runs read."""

from __future__ import annotations

import json
from pathlib import Path

from gotd.storage.files import locked, write_json

REVISIONS = "revisions.json"
"""Name of the record in the folder of what was fetched."""


def recorded(path: Path) -> dict[str, str]:
    """Read which commit of each repository was used.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged; delete it, and the newest commits are used and recorded"
        ) from error


def remember(path: Path, repository: str, commit: str) -> str:
    """Record the commit of a repository, unless another run has recorded one.

    Returns:
        The commit that is recorded.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f"{path.name}.lock")):
        known = {repository: commit, **recorded(path)}
        write_json(path, known)
    return known[repository]
