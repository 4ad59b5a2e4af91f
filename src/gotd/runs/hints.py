"""Hints at the field of the configuration that a misspelt override meant."""

from __future__ import annotations

import re
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from gotd.storage.checks import meant

UNKNOWN = re.compile(r"Key '([^']+)' not in '([^']+)'")
"""How Hydra says that a schema has no such field."""


def field_meant(message: str) -> str:
    """Return a hint for a message of Hydra that says which field is unknown; empty for others."""
    if (found := UNKNOWN.search(message)) is None:
        return ""
    key, schema = found.groups()
    fields = {"experiment", "scale"} if schema == "Config" else set()
    nodes: list[Any] = [ConfigStore.instance().repo]
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict):
            nodes += node.values()
        elif getattr(OmegaConf.get_type(node.node), "__name__", "") == schema:
            fields |= {str(name) for name in node.node}
    return meant(key, sorted(fields))
