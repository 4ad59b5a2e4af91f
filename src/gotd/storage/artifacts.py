"""Keep what a step wrote, under the name of everything that decided its bytes.

A step is a value: what it is, its version, its parameters and the steps it reads.
The SHA-256 of that is its key, so running again is resuming, and nothing is computed
twice. The state of a step can be read off the disk:

- ``<folder>`` exists                          -> the step finished
- ``<folder>.part`` exists, ``<folder>`` not   -> it was interrupted and resumes there
- neither                                      -> it has not run
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from gotd.storage.environment import peak_memory_gib, reset_peak_memory

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
WORK = ".work"
"""Folder inside an unfinished artifact for checkpoints; gone once the step is done."""
LONG_S = 20.0
"""A step that takes longer is worth two lines of the log: then, and when it is built."""


class ArtifactError(RuntimeError):
    """An artifact is damaged, or could not be written."""


def canonical_json(value: Any) -> str:
    """Write a JSON value so that equal values give equal bytes.

    Raises:
        ValueError: If the value holds NaN or an infinity, which JSON cannot say.
        TypeError: If it holds something that is not JSON.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def checksum(path: Path) -> str:
    """Give the SHA-256 of a file as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Step:
    """One step of the protocol: reads artifacts, writes one.

    Args:
        kind: Name of the step, the folder under which its artifacts stand.
        version: Bumped whenever the same parameters would give other bytes.
        name: Readable part of the folder's name; no part of the identity.
        parameters: JSON of all that changes the bytes. Batch size, workers,
            device and paths are not among it.
        build: Writes the artifact into the folder it is given, reading the folders
            of ``inputs`` by role. It may be called on a folder that an interrupted
            run left, and finds its checkpoints in ``folder / WORK``.
        inputs: The steps it reads, by role.
    """

    kind: str
    version: int
    name: str
    parameters: Mapping[str, Any]
    build: Callable[[Path, Mapping[str, Path]], None] = field(repr=False, compare=False)
    inputs: Mapping[str, Step] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """SHA-256 of kind, version, parameters and the inputs' keys."""
        identity = {
            "kind": self.kind,
            "version": self.version,
            "parameters": self.parameters,
            "inputs": {role: step.key for role, step in self.inputs.items()},
        }
        return hashlib.sha256(canonical_json(identity).encode()).hexdigest()

    def ancestors(self) -> list[Step]:
        """List this step and all it rests on, inputs first, each once."""
        found: dict[str, Step] = {}
        for step in self.inputs.values():
            found.update({ancestor.key: ancestor for ancestor in step.ancestors()})
        found[self.key] = self
        return list(found.values())


class Store:
    """A folder of artifacts, ``<root>/<kind>/<name>-<key12>/``.

    Args:
        root: Folder of the store; made when the first artifact is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._verified: set[Path] = set()

    def folder(self, step: Step) -> Path:
        """Give the folder in which the step's artifact stands once it is done."""
        return self.root / step.kind / f"{step.name}-{step.key[:12]}"

    def is_done(self, step: Step) -> bool:
        """Tell whether the step's artifact is there."""
        return self.folder(step).is_dir()

    def manifest(self, step: Step) -> dict[str, Any]:
        """Read what was written down when the step finished.

        Raises:
            ArtifactError: If the manifest is missing or damaged.
        """
        path = self.folder(step) / MANIFEST
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise _damaged(path, "is missing", path.parent) from error
        except ValueError as error:  # not UTF-8, or not JSON
            raise _damaged(path, "cannot be read", path.parent) from error
        if not isinstance(found, dict) or found.get("key") != step.key:
            raise _damaged(path, "is not of this artifact", path.parent)
        return found

    def get(self, step: Step) -> Path:
        """Give the step's folder, building it and what it rests on if need be.

        Raises:
            ArtifactError: If a stored file is not what its manifest says, or the
                disk is full.
        """
        folder = self.folder(step)
        if not self.is_done(step):
            inputs = {role: self.get(needed) for role, needed in step.inputs.items()}
            with self._room_needed(step), self.locked(step):
                if not self.is_done(step):  # another process may have built it meanwhile
                    self._build(step, folder, inputs)
        if folder not in self._verified:
            self._verify(step, folder)
            self._verified.add(folder)
        return folder

    def _build(self, step: Step, folder: Path, inputs: Mapping[str, Path]) -> None:
        part = folder.with_name(folder.name + ".part")
        if not _is_filled(step, part):
            self._fill(step, part, inputs)
            self._verified.add(folder)
        # Only now: a run stopped before its manifest stands goes on from the checkpoints.
        if (part / WORK).exists():
            shutil.rmtree(part / WORK)
        part.rename(folder)
        _flush(folder.parent)

    def _fill(self, step: Step, part: Path, inputs: Mapping[str, Path]) -> None:
        """Build the step into ``part``; the manifest is written last, when all is on disk."""
        resumed = part.exists()
        part.mkdir(parents=True, exist_ok=True)
        started_at, began = datetime.now(UTC), time.perf_counter()
        reset_peak_memory()
        if resumed:
            log.info("resuming %s %s", step.kind, step.name)
        announce = threading.Timer(LONG_S, log.info, ("building %s %s", step.kind, step.name))
        announce.daemon = True
        if not resumed:
            announce.start()
        try:
            step.build(part, inputs)
        finally:
            announce.cancel()
        if (took := time.perf_counter() - began) > LONG_S:
            log.info("built %s %s in %.0f s", step.kind, step.name, took)
        # What a kill in the middle of `write_json` leaves; it would be gone again below.
        (part / f"{MANIFEST}.part").unlink(missing_ok=True)
        paths = sorted(path for path in part.rglob("*") if path.relative_to(part).parts[0] != WORK)
        files = {
            path.relative_to(part).as_posix(): {
                "sha256": checksum(path),
                "bytes": path.stat().st_size,
            }
            for path in paths
            if path.is_file() and path != part / MANIFEST
        }
        for path in (*paths, part):
            _flush(path)
        manifest = {
            "kind": step.kind,
            "version": step.version,
            "name": step.name,
            "key": step.key,
            "parameters": dict(step.parameters),
            "inputs": {role: needed.key for role, needed in step.inputs.items()},
            "files": files,
            "cost": {
                "started_at": started_at.isoformat(timespec="seconds"),
                "elapsed_s": round(time.perf_counter() - began, 3),
                "peak_memory_gib": peak_memory_gib(),
                "resumed": resumed,
            },
        }
        write_json(part / MANIFEST, manifest)
        _flush(part)

    def _verify(self, step: Step, folder: Path) -> None:
        manifest = self.manifest(step)
        try:
            expected = {
                folder / name: (facts["bytes"], facts["sha256"])
                for name, facts in manifest["files"].items()
            }
        except (AttributeError, KeyError, TypeError) as error:
            raise _damaged(folder / MANIFEST, "cannot be read", folder) from error
        for path, (size, sha256) in expected.items():
            if not path.is_file():
                raise _damaged(path, "is missing", folder)
            if path.stat().st_size != size:
                raise _damaged(path, "has another size than its manifest says", folder)
            if checksum(path) != sha256:
                raise _damaged(path, "has another checksum than its manifest says", folder)

    @contextmanager
    def locked(self, step: Step) -> Iterator[None]:
        """Hold the step's lock; the system drops it if this process is killed."""
        locks = self.root / ".locks"
        try:
            locks.mkdir(parents=True, exist_ok=True)
            file = (locks / f"{step.kind}-{step.key[:12]}").open("w")
        except OSError as error:
            if _is_disk_full(error, self.root):
                raise
            reason = error.strerror or error
            raise ArtifactError(
                f"cannot write the store {self.root}: {reason}; choose another folder for it"
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("waiting for another worker that builds %s %s", step.kind, step.name)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _room_needed(self, step: Step) -> Iterator[None]:
        """Turn whatever a full disk makes the block raise into one error with the remedy."""
        try:
            yield
        except ArtifactError:
            raise  # says already what is wrong
        except Exception as error:
            if not _is_disk_full(error, self.root):
                raise
            raise ArtifactError(
                f"no space left in {self.root} while building {step.kind} "
                f"{self.folder(step).name}; free some space and run the same command again, "
                "it resumes"
            ) from error


def _is_filled(step: Step, part: Path) -> bool:
    """Tell whether a run was stopped after the step's manifest was written."""
    try:
        manifest = json.loads((part / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("key") == step.key


def _damaged(path: Path, problem: str, folder: Path) -> ArtifactError:
    return ArtifactError(f"{path} {problem}; delete {folder} and run again")


def _is_disk_full(error: BaseException, folder: Path) -> bool:
    """Tell whether an error means that the disk (or the quota) is full.

    Pyarrow passes the system's error number on, safetensors its words only, and torch
    and NumPy neither: then a disk without a free MiB decides.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    if "No space left on device" in str(error):
        return True
    if not isinstance(error, (OSError, RuntimeError)):
        return False
    standing = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(standing).free < 2**20


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
