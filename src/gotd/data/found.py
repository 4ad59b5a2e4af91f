"""Which files are input: those named, matched by a pattern, or found in a folder.

`input_files` chooses them, and reports every file of a folder that is left out.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from gotd.data.files import INPUT_SUFFIXES, first_line
from gotd.storage.files import check_path, resolved, special_kind
from gotd.storage.printing import listed

log = logging.getLogger(__name__)

SAVED, SAVED_SPLITS, SAVED_INFO = "state.json", "dataset_dict.json", "dataset_info.json"
"""Files that `datasets.Dataset.save_to_disk` and `datasets.DatasetDict.save_to_disk` write."""


@dataclass(frozen=True)
class Found:
    """A file that is input.

    Args:
        path: The file.
        given: Whether it was named itself or by a pattern, so it must be rows.
        domain: Domain of rows that have none; ``None``: the file's name.
    """

    path: Path
    given: bool = True
    domain: str | None = None


def input_files(name: str, store: Path | None = None) -> list[Found]:
    """Return the files that a name refers to.

    A name with ``*``, ``?`` or ``[`` is a pattern, unless it is that of a folder, or of a file
    that the pattern does not match: ``*.jsonl`` is a pattern though a file may be called so, and
    ``rows[1].jsonl`` is the file of this name where there is one.

    Args:
        name: A file, a pattern such as ``pool/*.parquet``, a folder with files at any depth,
            or a folder that ``save_to_disk`` wrote.
        store: Folder of the artifacts, which are no input of a folder around it.

    Raises:
        FileNotFoundError: If it refers to nothing that can be read.
        ValueError: If it is a saved data set with several splits, or a damaged one.
    """
    path = Path(name)
    check_path(path, "the input")
    if path.is_dir():
        files = list(_walk(path, store and resolved(store)))
        if not files:
            raise FileNotFoundError(
                f"the folder {name} holds no file that can be read; there must be one of "
                f"{', '.join(INPUT_SUFFIXES)}"
            )
        return files
    if not any(sign in name for sign in "*?["):
        return [Found(path)]
    # Not Path.glob, which knows no absolute pattern.
    matched = sorted(filter(Path.is_file, map(Path, glob(name, recursive=True))))  # noqa: PTH207
    if path.exists() and path not in matched:
        return [Found(path)]
    if not matched:
        hint = ", and write [[] for a bracket that is part of a name" if "[" in name else ""
        raise FileNotFoundError(f"no file matches {name!r}; check the pattern{hint}")
    return [Found(file) for file in matched]


def left_out(name: str) -> str | None:
    """Return why a file of a folder is no input, by its name; ``None``: it is input."""
    if name.startswith((".", "_")):
        return "its name begins with a dot or an underscore"
    if not name.endswith(INPUT_SUFFIXES):
        hint = "; endings are in lower case" if name.lower().endswith(INPUT_SUFFIXES) else ""
        return f"its name ends in no known format{hint}"
    return None


def _walk(folder: Path, store: Path | None) -> Iterator[Found]:
    """Yield the files of a folder in the order of their paths, and report the others."""
    if (folder / SAVED_SPLITS).is_file():
        folder = _only_split(folder)
    if (folder / SAVED).is_file() and (folder / SAVED_INFO).is_file():
        yield from _saved(folder)
        return
    for path in sorted(folder.iterdir()):
        check_path(path, "the input")
        if path.is_dir():
            if path.is_symlink():
                report_left_out(path, "it is a link to a folder")
            elif resolved(path) == store:
                report_left_out(path, "it is the store of artifacts")
            elif path.name.startswith((".", "_")):
                report_left_out(path, "its name begins with a dot or an underscore")
            else:
                yield from _walk(path, store)
        elif not path.is_file():
            report_left_out(path, _no_file(path))
        elif (reason := left_out(path.name)) is not None:
            report_left_out(path, reason)
        else:
            yield Found(path, given=False)


def _no_file(path: Path) -> str:
    """Return why a path that is neither file nor folder is left out."""
    if (kind := special_kind(path)) is not None:
        return f"it is a link to {kind}" if path.is_symlink() else f"it is {kind}"
    return "it is a link to nothing" if path.is_symlink() else "no file"


def report_left_out(path: Path | str, reason: str) -> None:
    """Log that a file or folder is no input, and why."""
    log.warning("%s is left out: %s", path, reason)


def _saved(folder: Path) -> list[Found]:
    """Return the Arrow files of a saved data set, in its order."""
    names = [file.get("filename") for file in _read(folder / SAVED).get("_data_files", [])]
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise ValueError(f"{folder / SAVED} is damaged; save the data set again")
    if not names:
        raise FileNotFoundError(f"{folder / SAVED} names no file of rows; save the data set again")
    return [Found(folder / name, domain=resolved(folder).name) for name in names]


def _only_split(folder: Path) -> Path:
    splits = _read(folder / SAVED_SPLITS).get("splits", [])
    if not splits or not all(isinstance(s, str) and Path(s).name == s for s in splits):
        raise ValueError(f"{folder / SAVED_SPLITS} is damaged; save the data set again")
    if len(splits) > 1:
        raise ValueError(
            f"{folder} holds a data set with the splits {listed(splits)}; name one, such as "
            f"{folder / splits[0]}"
        )
    return folder / splits[0]


def _read(path: Path) -> dict:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged ({first_line(error)}); save the data set again"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged; save the data set again")
    return content


def common_folder(paths: Sequence[Path]) -> Path:
    """Return the deepest folder that holds all of some files."""
    return Path(os.path.commonpath([path.parent for path in paths]))
