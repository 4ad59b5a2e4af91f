"""Files on remote storage, by URL: copied once, and again when they change.

The protocols are those of `fsspec`: ``s3://`` needs the package s3fs, ``gs://`` gcsfs, and
``hf://`` huggingface_hub.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

from gotd.data.base import SourceUnavailable
from gotd.data.files import first_line
from gotd.data.found import SAVED, SAVED_INFO, SAVED_SPLITS, left_out, report_left_out
from gotd.storage.files import atomic_write, write_json

REMOTE = "remote"
"""Folder of the copies in a store."""
VERSIONS = ".versions.json"
"""File with what told the version of each copy."""
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub"}


def is_remote(name: str) -> bool:
    """Return whether a name is a URL."""
    return re.match(r"[a-z][a-z0-9+.-]+://", name) is not None


def fetch_remote(url: str, store: Path) -> Path:
    """Copy the files of a URL that are new or have changed.

    Args:
        url: A file, a pattern or a folder, such as ``s3://bucket/pool/``.
        store: Folder of the copies.

    Returns:
        The copy, a file or a folder.

    Raises:
        SourceUnavailable: If a package for the protocol is not installed, or the storage is
            out of reach.
        FileNotFoundError: If the URL refers to nothing.
    """
    protocol = url.partition("://")[0]
    try:
        return _fetch(url, store)
    except (FileNotFoundError, NotADirectoryError) as error:
        if isinstance(error, SourceUnavailable):
            raise
        raise FileNotFoundError(f"{url} refers to nothing; check the address") from error
    except ImportError as error:
        package = PACKAGES.get(protocol, "the package that fsspec names")
        raise SourceUnavailable(
            f"{url} cannot be read ({first_line(error)}); install {package}, or copy the files "
            "here and give their paths"
        ) from error
    except Exception as error:  # every storage has errors of its own
        raise SourceUnavailable(
            f"{url} cannot be read ({first_line(error)}); check the address, the rights and the "
            "network, or copy the files here and give their paths"
        ) from error


def _fetch(url: str, store: Path) -> Path:
    import fsspec

    system, path = fsspec.core.url_to_fs(url)
    path = path.rstrip("/")
    pattern = any(sign in path for sign in "*?[")
    single = not pattern and system.isfile(path)
    if pattern:
        found = [file for file in system.glob(path) if system.isfile(file)]
        root = str(PurePosixPath(re.split(r"[*?\[]", path)[0] + "x").parent)
    else:
        found = [path] if single else system.find(path)
        root = str(PurePosixPath(path).parent) if single else path
    if not found:
        raise FileNotFoundError(url)
    folder = (
        store
        / hashlib.sha256(url.encode()).hexdigest()[:16]
        / (PurePosixPath(root).name or "files")
    )
    names = {_relative(file, root): file for file in sorted(found)}
    for name in [] if single else list(names):
        reason = left_out(PurePosixPath(name).name)
        if reason and PurePosixPath(name).name not in (SAVED, SAVED_INFO, SAVED_SPLITS):
            report_left_out(f"{url}: {name}", reason)
            del names[name]
    _copy(system, names, folder)
    return folder / next(iter(names)) if single else folder


def _relative(file: str, root: str) -> str:
    """Return the path of a file inside a folder; one that leads out of it is an error."""
    name = PurePosixPath(file).relative_to(root) if root not in ("", ".") else PurePosixPath(file)
    if name.is_absolute() or ".." in name.parts:
        raise ValueError(f"{file} is not inside {root}")
    return str(name)


def _copy(system: Any, names: dict[str, str], folder: Path) -> None:
    """Copy files, and delete copies of files that are gone."""
    record = folder.with_name(VERSIONS)
    known = _known(record)
    versions = {name: str(system.ukey(file)) for name, file in names.items()}
    for name in set(known) - set(versions):
        (folder / name).unlink(missing_ok=True)
        del known[name]
    for name, file in names.items():
        copy = folder / name
        if known.get(name) == versions[name] and copy.is_file():
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(copy) as part:
            system.get_file(file, str(part))
        known[name] = versions[name]
        write_json(record, known)


def _known(record: Path) -> dict[str, str]:
    """Return the version of each copy; none where that is not known, so all are copied again."""
    try:
        known = json.loads(record.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
