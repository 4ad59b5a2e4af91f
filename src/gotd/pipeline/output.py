"""What a selection writes: a folder, or a file of rows beside one; completely or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from gotd.pipeline.formats import DATASET, FOLDER_FORMAT, row_suffix, written_suffix
from gotd.storage.files import (
    check_path,
    checksum,
    locked,
    remove_left_over,
    resolved,
    special_kind,
)

MANIFEST, REPORT, PAGE, CARD = "manifest.json", "report.md", "report.html", "README.md"

KIND = "selection"
"""Value of ``kind`` in the manifest of a folder that `gotd select` wrote."""


class Output:
    """The folder of a selection, and the file of rows beside it where one was asked for.

    ``chosen/`` holds rows and reports. ``chosen.jsonl`` holds rows, and ``chosen.gotd/`` the
    reports.

    Args:
        out: The folder or file to create; a symbolic link is followed.
        overwrite: Replace what something else wrote.
        option: What it was given by, for messages.

    Raises:
        ValueError: If the name is that of data in a format that is not written, or that of a
            link to a name of another format.
    """

    def __init__(self, out: Path, overwrite: bool = False, option: str = "--out") -> None:
        self.out, self.overwrite, self.option = resolved(out), overwrite, option
        check_path(self.out, option)
        self.suffix = row_suffix(self.out)
        if written_suffix(out.name) not in (None, self.suffix):
            raise ValueError(
                f"{option} {out} is a link to {self.out}, whose name ends in another way; give "
                "that name, or remove the link"
            )
        self._stem = self.out.name.removesuffix(self.suffix or "")
        self.folder = self.out
        if self.suffix:
            self.folder = self.out.with_name(f"{self._stem}.gotd")

    def file_names(self, budgets: Mapping[int, str]) -> dict[int, str]:
        """Return the file of each budget; where there are several, its name has their labels.

        Args:
            budgets: Label of each number of rows.
        """
        stem, suffix = (self._stem, self.suffix) if self.suffix else ("selected", FOLDER_FORMAT)
        if len(budgets) == 1:
            return dict.fromkeys(budgets, f"{stem}{suffix}")
        return {rows: f"{stem}-{label}{suffix}" for rows, label in sorted(budgets.items())}

    def _is_rows(self, path: Path) -> bool:
        """Return whether a path is a file of rows that this output may write."""
        return bool(self.suffix) and path.parent == self.out.parent and self._has_name(path.name)

    def _has_name(self, name: str) -> bool:
        form = rf"{re.escape(self._stem)}(-\d+[kMB]?)?{re.escape(self.suffix or '')}"
        return re.fullmatch(form, name) is not None

    def holds(self, path: Path) -> bool:
        """Return whether a path is in the place of this output, whatever the budgets."""
        real = resolved(path)
        return real.is_relative_to(self.folder) or real == self.out or self._is_rows(real)

    def wrote(self, path: Path, name: str) -> bool:
        """Return whether a file is as the selection that is there was written with it.

        Args:
            path: A file beside the selection.
            name: Its entry in the manifest, ``removed`` or ``weights``.
        """
        stated = self._written().get(name)
        if not isinstance(stated, dict) or not path.is_file():
            return False
        return stated.get("sha256") == checksum(path)

    def _beside(self, ending: str) -> Path:
        # A name that nobody else has, since what is there is removed.
        return self.folder.with_name(f".{self.folder.name}.gotd-{ending}")

    @contextmanager
    def claimed(self, inputs: Sequence[Path], store: Path) -> Iterator[None]:
        """Lock the folder for this run, after checking that it can be written.

        Args:
            inputs: Files that are read; a folder that holds one is never replaced.
            store: Folder of the artifacts, which would be replaced with the folder around it.

        Raises:
            ValueError: If something else is there, an input or the store, or another run
                writes there.
            OSError: If nothing can be written there.
        """
        for path in (*inputs, store):
            real = resolved(path)
            inside = [place for place in (real, *real.parents) if self._is_rows(place)]
            if real.is_relative_to(self.folder) or inside:
                what = "store" if path is store else "input"
                verb = "is" if real in inside else "holds"
                place = inside[0] if inside else self.folder
                raise ValueError(f"{place} {verb} the {what} {path}; choose another {self.option}")
        lock = self._beside("lock")
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(lock, wait=False))
            except BlockingIOError as error:
                raise ValueError(
                    f"another gotd select is writing {self.out}; wait until it is done, or "
                    f"choose another {self.option}"
                ) from error
            except OSError as error:
                raise self._cannot_write(error) from error
            stack.callback(lock.unlink, missing_ok=True)
            remove_left_over(self.folder.parent)
            old = self._beside("old")
            if old.exists() and not self.folder.exists():  # killed while it was replaced
                old.rename(self.folder)
            self._check_replaceable([self.out.name] if self.suffix else [])
            yield

    def _check_replaceable(self, files: Sequence[str]) -> None:
        """Check that the folder, and the files of rows beside it, may be replaced."""
        others = [name for name in self._written().get("files", {}) if not self._has_name(name)]
        if self.suffix and (kept := [n for n in others if self.out.with_name(n).exists()]):
            raise ValueError(
                f"{self.folder} has the reports of {self.out.with_name(kept[0])}; choose another "
                f"{self.option}, which differs in more than its suffix, or delete both first"
            )
        beside = [self.out.with_name(name) for name in files]
        for path in (self.folder, *beside):
            if (kind := special_kind(path)) is not None:
                raise ValueError(
                    f"{self.option} {path} is {kind}, which is never replaced; choose another name"
                )
        refused = [self.folder] if self.folder.exists() and not self._may_replace() else []
        refused += [path for path in beside if path.exists() and not self._may_replace_rows(path)]
        if refused:
            raise ValueError(
                f"{refused[0]} exists and was not written by gotd select; choose another "
                f"{self.option}, or give --overwrite (which never replaces a folder that holds "
                "folders)"
            )

    def _may_replace_rows(self, path: Path) -> bool:
        if path.is_dir() != (self.suffix == DATASET):
            return False
        if path.is_dir() and any(inside.is_dir() for inside in path.iterdir()):
            return False
        return self.overwrite or path.name in self._written().get("files", {})

    def _written(self) -> dict[str, Any]:
        """Return the manifest of the selection that is there; empty if there is none."""
        try:
            manifest = json.loads((self.folder / MANIFEST).read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        is_ours = isinstance(manifest, dict) and manifest.get("kind") == KIND
        return manifest if is_ours else {}

    def _may_replace(self) -> bool:
        if not self.folder.is_dir():
            return False
        inside = list(self.folder.iterdir())
        if not inside or (self.overwrite and not any(path.is_dir() for path in inside)):
            return True
        manifest = self._written()
        if not manifest:
            return False
        ours = {MANIFEST, REPORT, PAGE, CARD, *manifest.get("files", {})}
        return {path.name for path in inside} <= ours

    @contextmanager
    def filling(self, files: Sequence[str] = ()) -> Iterator[Path]:
        """Yield a folder to fill, which becomes the selection when the block succeeds.

        Args:
            files: Names in it that become files beside the folder, where a file was asked for.

        Raises:
            ValueError: If the folder has come to hold something else meanwhile.
            OSError: If the folder cannot be written or the disk is full.
        """
        part, old = self._beside("part"), self._beside("old")
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            yield part
            beside = list(files) if self.suffix else []
            self._check_replaceable(beside)
            for name in beside:
                self._move(part / name, self.out.with_name(name))
            shutil.rmtree(old, ignore_errors=True)
            if self.folder.exists():
                self.folder.rename(old)
            part.rename(self.folder)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise self._explained(error) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _explained(self, error: OSError) -> OSError:
        """Return an error of this output by name and remedy; that of an input as it is."""
        if isinstance(error, OutputError) or is_of_an_input(error):
            return error
        return self._cannot_write(error)

    def _cannot_write(self, error: OSError) -> OSError:
        place = self.folder if self.option == "--out" else self.out
        return cannot_write(error, place, self.option)

    def _move(self, rows: Path, place: Path) -> None:
        """Move finished rows to their place; a folder's old one is removed last."""
        old = place.with_name(f".{place.name}.gotd-old")
        shutil.rmtree(old, ignore_errors=True)
        if place.is_dir():
            place.rename(old)
        rows.replace(place)
        shutil.rmtree(old, ignore_errors=True)


def is_of_an_input(error: OSError) -> bool:
    """Return whether an error is a message about an input, not the system's own."""
    return error.errno is None and "No space left" not in str(error)


class OutputError(OSError):
    """An error of an output, which names it and the remedy."""


def cannot_write(error: OSError, folder: Path, option: str = "--out") -> OutputError:
    """Return an error that names the output and the remedy; an input is named by itself.

    Args:
        error: What the system said.
        folder: The output; another one than that of ``--out`` is named with its option.
        option: What it was given by.
    """
    shown = folder if option == "--out" else f"{option} {folder}"
    words = os.strerror(error.errno) if error.errno else str(error)  # pyarrow adds a path
    if isinstance(error, shutil.Error):  # of a copy: all files with their reasons
        words = str(error.args[0][0][-1])
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in words:
        return OutputError(
            f"no space left for {shown}; free some space and run the same command again"
        )
    own = folder.parent
    if error.filename is not None and not Path(os.fsdecode(error.filename)).is_relative_to(own):
        return OutputError(f"{os.fsdecode(error.filename)}: {words}; nothing was written")
    return OutputError(f"cannot write {shown}: {words}; choose another {option}")
