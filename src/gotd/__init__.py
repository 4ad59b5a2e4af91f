"""Choose the right unlabelled data to warm up a language model before fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gotd._version import __version__ as __version__

if TYPE_CHECKING:
    from gotd.api import GOTD as GOTD
    from gotd.pipeline.selection import Selection as Selection


def __getattr__(name: str) -> Any:
    # Only when asked for: the command line must not wait for torch.
    if name in ("GOTD", "Selection"):
        from gotd import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
