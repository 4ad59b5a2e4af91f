"""Models of the Hugging Face Hub: the commit of each, and its files on this machine.

A run names the folder of what was fetched. Its ``revisions.json`` records the commit of a model
at its first use, and ``models/`` has the files of those that `gotd fetch` downloaded. Other
models are in the local cache of the Hub.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gotd.storage.files import flush, locked, rename_durably
from gotd.storage.hub_record import REVISIONS, recorded, remember
from gotd.storage.hub_requests import asked

log = logging.getLogger(__name__)

HUB_TIMEOUT_S = 10.0
"""Seconds to wait for the Hub when the commit of a model is looked up."""
FOLDER = "GOTD_HUB"
"""Variable with the folder of what was fetched; processes that a run starts inherit it."""
FOLDERS = (FOLDER, "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
"""Variables with folders of what was fetched: our own, and those of `huggingface_hub`."""
CHOICES = ("HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
"""Variables that decide which Hub is asked, and whether one is asked."""
KNOWN_BY = ("config.json", "tokenizer_config.json", "tokenizer.json")
"""Files of which a model or a tokenizer has at least one."""
SETTINGS = (".json", ".txt", ".model", ".jinja")
WEIGHTS = ".safetensors"
"""Ends of the names of files that make a model, in its repository's own folder."""


def use_hub_folder(folder: Path | str) -> None:
    """Use the record and the models of a folder, in this process and those that it starts."""
    os.environ[FOLDER] = str(Path(folder).absolute())


def hub_variables() -> dict[str, str]:
    """Return the variables of this process that decide which Hub is asked, where they are set.

    They can be shown to others: `HF_TOKEN` and `HF_TOKEN_PATH` are not among them, and an
    address with a password is left out with a warning.

    Returns:
        Values by name; folders are absolute.
    """
    found = {name: value for name in (*FOLDERS, *CHOICES) if (value := os.environ.get(name))}
    for name in found.keys() & {*FOLDERS}:
        # As `huggingface_hub` reads them; another process may have another working folder.
        expanded = os.path.expandvars(Path(found[name]).expanduser())
        found[name] = str(Path(expanded).absolute())
    address = urlsplit(found.get("HF_ENDPOINT", ""))
    if "@" in address.netloc or address.query:
        _report_password()
        del found["HF_ENDPOINT"]
    return found


@cache  # once, not at every task
def _report_password() -> None:
    log.warning(
        "HF_ENDPOINT holds a password or a query, so it is not sent to workers of Ray; set it "
        "where `ray start` runs, on every node"
    )


def hub_commit(model: str, revision: str | None = None) -> str | None:
    """Return the commit of a Hub model: recorded, in the local cache, or else the newest.

    Load a model by this commit, too: a branch may have moved since the key was computed.

    Args:
        model: Its name; of a local folder, the revision is returned.
        revision: Branch, tag or commit; ``None``: the main branch.

    Returns:
        The commit; ``revision`` if it is known nowhere and the Hub does not answer.

    Raises:
        ValueError: If the record is damaged.
    """
    if Path(model).is_dir() or is_commit(revision):
        return revision
    folder = _hub_folder()
    name = f"models/{model}" + (f"@{revision}" if revision else "")
    if folder is not None and (known := recorded(folder / REVISIONS).get(name)):
        return known
    found = newest_commit(model, revision)
    if folder is not None and found is not None and is_commit(found):
        return remember(folder / REVISIONS, name, found)
    return found


def is_commit(revision: str | None) -> bool:
    """Return whether a revision is a full commit hash, which never moves."""
    return re.fullmatch(r"[0-9a-f]{40}", revision or "") is not None


def newest_commit(model: str, revision: str | None) -> str | None:
    """Return the commit in the local cache, or else on the Hub; else ``revision``.

    Where the Hub does not answer, the only commit in the cache is that of the main branch.
    """
    if (known := cached_commit(model, revision)) is not None:
        return known
    answer = _ask_commit(model, revision)
    if isinstance(answer, str):
        return answer
    # Offline, no such model, or no name of the Hub's.
    return revision or _only_snapshot(model)


@cache
def _ask_commit(model: str, revision: str | None) -> str | Exception:
    """Ask the Hub for a commit, once in a process; return what the request raised."""
    from huggingface_hub import HfApi

    try:
        info = partial(HfApi().model_info, model, revision=revision, timeout=HUB_TIMEOUT_S)
        return asked(info, f"the commit of {model}").sha or OSError(f"{model} has no commit")
    except Exception as error:  # noqa: BLE001 - network errors have many classes
        return error


def cached_commit(model: str, revision: str | None) -> str | None:
    """Return the commit of a model in the local cache of the Hub, if it is there."""
    cached = _cached_folder(model, revision)
    return None if cached is None else cached.name


def _cached_folder(model: str, revision: str | None) -> Path | None:
    """Return the folder of a model, or of a tokenizer alone, in the local cache of the Hub."""
    from huggingface_hub import try_to_load_from_cache

    for file in KNOWN_BY:
        try:
            cached = try_to_load_from_cache(model, file, revision=revision)
        except ValueError:  # no name of the Hub's
            return None
        if isinstance(cached, str):
            return Path(cached).parent
    return None


def _only_snapshot(model: str) -> str | None:
    """Return the commit in the local cache of the Hub if there is one alone."""
    from huggingface_hub import constants

    name = f"models--{model.replace('/', '--')}"
    found = [*(Path(constants.HF_HUB_CACHE) / name / "snapshots").glob("*")]
    return found[0].name if len(found) == 1 else None


def is_downloaded(model: str, commit: str | None) -> bool:
    """Return whether a model of the Hub, or a part of it, is on this machine."""
    kept = _kept(model, commit or "main")
    return (kept is not None and kept.is_dir()) or cached_commit(model, commit) is not None


def model_folder(model: str, revision: str | None = None, weights: bool = True) -> Path:
    """Return the folder of a Hub model at one commit, downloaded if it is not here.

    Args:
        model: Its name.
        revision: Branch, tag or commit; ``None``: the main branch.
        weights: Whether the weights are needed; else only small files are downloaded.

    Raises:
        OSError: If there is no such model, or the Hub does not answer.
    """
    commit = _fixed(model, revision)
    kept = _kept(model, commit)
    return kept if kept is not None and kept.is_dir() else _downloaded(model, commit, weights)


def hub_config(model: str, revision: str | None = None) -> Path:
    """Return the config.json of a Hub model at one commit, the only file that is downloaded.

    Raises:
        OSError: If there is no such model, or the Hub does not answer.
    """
    from huggingface_hub import hf_hub_download

    commit = _fixed(model, revision)
    kept = _kept(model, commit)
    if kept is not None and kept.is_dir():
        return kept / "config.json"
    file = partial(hf_hub_download, model, "config.json", revision=commit)
    return Path(asked(partial(file, etag_timeout=HUB_TIMEOUT_S), f"config.json of {model}"))


def fetch_model(model: str, revision: str | None = None) -> Path:
    """Copy a Hub model into the folder of what was fetched; return its place.

    Raises:
        OSError: If there is no such model, or the Hub does not answer.
        ValueError: If no folder is used.
    """
    commit = _fixed(model, revision)
    kept = _kept(model, commit)
    if kept is None:
        raise ValueError("no folder for models of the Hub is in use")
    if kept.is_dir():
        return kept
    # A part of it would be taken for all of it.
    folder = _downloaded(model, commit, weights=True, whole=True)
    with locked(kept.with_name(f"{kept.name}.lock"), f"that copies {model}"):
        if not kept.is_dir():
            part = kept.with_name(f"{kept.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            for file in sorted(folder.iterdir()):
                if _is_needed(file.name, weights=True):
                    shutil.copyfile(file, part / file.name)
                    flush(part / file.name)
            rename_durably(part, kept)
    return kept


@cache
def _downloaded(model: str, commit: str, weights: bool, whole: bool = False) -> Path:
    """Download what is missing in the local cache of the Hub; return the folder there."""
    from huggingface_hub import HfApi, hf_hub_download

    hub = HfApi()
    try:
        info = partial(hub.model_info, model, revision=commit, timeout=HUB_TIMEOUT_S)
        siblings: Any = asked(info, f"the files of {model}").siblings or []
    except Exception:
        # Without the list, what an earlier run has downloaded.
        known = _cached_folder(model, commit)
        if known is None or whole:
            raise
        log.warning("the Hub does not answer; %s is read from its local cache", model)
        return known
    names = [one.rfilename for one in siblings if _is_needed(one.rfilename, weights)]
    if not names:
        raise FileNotFoundError(f"{model} has no files of a model")
    places = [
        asked(partial(hf_hub_download, model, name, revision=commit), f"{name} of {model}")
        for name in names
    ]
    return Path(places[0]).parent


def _fixed(model: str, revision: str | None) -> str:
    """Return the commit of a model.

    Raises:
        OSError: If it is known nowhere.
    """
    commit = hub_commit(model, revision)
    if commit is None or not is_commit(commit):
        answer = _ask_commit(model, revision)
        raise OSError(f"the commit of {model} is known neither here nor from the Hub") from (
            answer if isinstance(answer, Exception) else None
        )
    return commit


def _is_needed(name: str, weights: bool) -> bool:
    ends = (*SETTINGS, WEIGHTS) if weights else SETTINGS
    return "/" not in name and name.endswith(ends)


def kept_file(name: str) -> Path | None:
    """Return where the folder of fetched files has another file; ``None`` without a folder."""
    folder = _hub_folder()
    return None if folder is None else folder / "files" / name


def _hub_folder() -> Path | None:
    return Path(os.environ[FOLDER]) if os.environ.get(FOLDER) else None


def _kept(model: str, commit: str) -> Path | None:
    """Return where the folder of fetched files has a model."""
    folder = _hub_folder()
    return None if folder is None else folder / "models" / model.replace("/", "--") / commit
