"""Steps and the store of their artifacts.

A `Step` describes one computation: its kind, version, parameters and input steps. The SHA-256
of these is its key. A `Store` builds a step into the folder ``<kind>/<name>-<key12>`` and
builds it only once, so the same command again continues where the last run stopped. While a
step is built its folder ends in ``.part``; a rename at the end makes it a finished artifact.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from gotd.storage import progress
from gotd.storage.environment import peak_memory_gib, reset_peak_memory, return_memory
from gotd.storage.errors import ArtifactError, explained, is_disk_full, not_writable
from gotd.storage.files import (
    TEMPORARY,
    FileMap,
    canonical_json,
    check_name,
    check_path,
    checksum,
    first_difference,
    flush,
    locked,
    rename_durably,
    write_json,
)
from gotd.storage.work import Work

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
WORK = ".work"
"""Folder for checkpoints inside an unfinished artifact; removed once the step is done."""


@dataclass(frozen=True)
class Step:
    """One computation of the protocol: it reads artifacts and writes one.

    Args:
        kind: Name of the computation, and the folder of its artifacts in the store.
        version: Raise it when the same parameters give other bytes.
        name: Readable part of the folder's name; not part of the key.
        parameters: JSON of everything that changes the bytes. Batch size, workers, device
            and paths do not belong there.
        build: Writes the artifact into the given folder and reads the folders of ``inputs``
            by role. The folder may be that of an interrupted run, with its checkpoints in
            ``folder / WORK``. Rows that are done are counted by `gotd.storage.progress.tick`.
        inputs: The steps it reads, by role.
        work: Returns the expected work; ``None`` if the step does not state it. It may fail
            where nothing is known of the rows, for instance without their source.
        rows: Counts the rows to be ticked, from the folders of ``inputs``; ``None`` if unknown.
        again: Returns the parameters again, for a step that reads files from outside the store.
            They are compared when it is built, so what is stored is what was hashed.
    """

    kind: str
    version: int
    name: str
    parameters: Mapping[str, Any]
    build: Callable[[Path, Mapping[str, Path]], None] = field(repr=False, compare=False)
    inputs: Mapping[str, Step] = field(default_factory=dict)
    work: Callable[[], Work] | None = field(default=None, repr=False, compare=False)
    rows: Callable[[Mapping[str, Path]], int] | None = field(
        default=None, repr=False, compare=False
    )
    again: Callable[[], Mapping[str, Any]] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_name(self.name, f"the {self.kind} of the name")

    @cached_property
    def key(self) -> str:
        """Return the SHA-256 of kind, version, parameters and the keys of the inputs."""
        identity = {
            "kind": self.kind,
            "version": self.version,
            "parameters": self.parameters,
            "inputs": {role: step.key for role, step in self.inputs.items()},
        }
        return hashlib.sha256(canonical_json(identity).encode()).hexdigest()

    @cached_property
    def stated(self) -> Work:
        """Return the work that the step states.

        Raises:
            ValueError: If it states none.
        """
        if self.work is None:
            raise ValueError(f"the step {self.kind} {self.name} does not state its work")
        return self.work()

    def changed_input(self) -> str | None:
        """Return the name of what has changed since the key was computed, ``None`` if nothing.

        Raises:
            OSError: If a file is no longer there.
        """
        if self.again is None:
            return None
        old, new = (canonical_json(fields) for fields in (self.parameters, self.again()))
        if old == new:
            return None
        return first_difference(json.loads(old), json.loads(new), f"the input of {self.name}")

    def work_or_none(self) -> Work | None:
        """Return the work that the step states, ``None`` where it cannot be stated."""
        try:
            return self.stated
        except Exception as error:  # noqa: BLE001 - an estimate must not stop a run
            log.debug("the work of %s %s is not known: %s", self.kind, self.name, error)
            return None

    def ancestors(self) -> list[Step]:
        """Return this step and all steps it depends on, inputs first, each once."""
        steps: dict[str, Step] = {}
        for step in self.inputs.values():
            steps.update({ancestor.key: ancestor for ancestor in step.ancestors()})
        steps[self.key] = self
        return list(steps.values())


MANY_BYTES = 2**28
"""Files of so many bytes take longer to hash than a cluster takes to start tasks."""


class Store:
    """A folder of artifacts, ``<root>/<kind>/<name>-<key12>/``.

    Args:
        root: Folder of the store; created with the first artifact.
        temporary: Whether it is deleted when the process ends.
        map_files: Computes the checksums of large artifacts, such as the ``map`` of an engine.
    """

    def __init__(self, root: Path | str, temporary: bool = False, map_files: FileMap = map) -> None:
        if not str(root).strip():
            raise ValueError("the store needs a name; an empty name is the working folder")
        root = Path(root)
        check_path(root, "the store")
        self.root, self._temporary, self._map_files = root.absolute(), temporary, map_files
        self._verified: set[Path] = set()

    def folder(self, step: Step) -> Path:
        """Return the folder of the step's artifact; it exists once the step is done."""
        return self.root / step.kind / f"{step.name}-{step.key[:12]}"

    def is_done(self, step: Step) -> bool:
        """Return whether the step's artifact exists."""
        return self.folder(step).is_dir()

    def manifest(self, step: Step) -> dict[str, Any]:
        """Read the manifest of a finished step.

        Raises:
            ArtifactError: If the manifest is missing or damaged.
        """
        return _read_manifest(step, self.folder(step))

    def get(self, step: Step) -> Path:
        """Return the step's folder; build the step and its inputs if they are missing.

        Raises:
            ArtifactError: If a stored file differs from its manifest, or the disk is full.
        """
        folder = self.folder(step)
        if not self.is_done(step):
            inputs = {role: self.get(needed) for role, needed in step.inputs.items()}
            doing = f" while building {step.kind} {folder.name}"
            with explained(self.root, doing, self._temporary), self.locked(step):
                if not self.is_done(step):  # another process may have built it meanwhile
                    self._build(step, folder, inputs)
        if folder not in self._verified:
            self._verify(step, folder)
            self._verified.add(folder)
        return folder

    def _build(self, step: Step, folder: Path, inputs: Mapping[str, Path]) -> None:
        part = folder.with_name(folder.name + TEMPORARY)
        try:
            _read_manifest(step, part)  # a run may have been stopped after it wrote that
        except ArtifactError:
            self._fill(step, part, inputs)
            self._verified.add(folder)
        # Not earlier: a run killed before it writes the manifest resumes from the checkpoints.
        if (part / WORK).exists():
            shutil.rmtree(part / WORK)
        rename_durably(part, folder)

    def _fill(self, step: Step, part: Path, inputs: Mapping[str, Path]) -> None:
        """Build the step into ``part``; write the manifest last, when all files are on disk."""
        resumed = part.exists()
        part.mkdir(parents=True, exist_ok=True)
        started_at, began = datetime.now(UTC), time.perf_counter()
        reset_peak_memory()
        label = f"{step.kind} {step.name}"
        if resumed:
            log.info("resuming %s", label)
        with progress.step(label, step.rows(inputs) if step.rows else None):
            step.build(part, inputs)
        return_memory()
        if (changed := step.changed_input()) is not None:
            shutil.rmtree(part)  # else the next run would go on with its rows
            raise ValueError(
                f"{changed} changed while it was read, so nothing of it is kept; run the same "
                "command again, and leave the input alone until it is done"
            )
        written = []
        for path in sorted(part.rglob("*")):
            name = path.relative_to(part).as_posix()
            if name == MANIFEST or name.split("/")[0] == WORK:
                continue
            if path.suffix == TEMPORARY and path.is_file():
                path.unlink()  # of a write that was killed
                continue
            flush(path)
            if path.is_file():
                written.append(path)
        flush(part)
        files = {
            path.relative_to(part).as_posix(): {"sha256": sha256, "bytes": path.stat().st_size}
            for path, sha256 in zip(written, self._checksums(written), strict=True)
        }
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
            "work": asdict(work) if (work := step.work_or_none()) else None,
        }
        write_json(part / MANIFEST, manifest)

    def _verify(self, step: Step, folder: Path) -> None:
        manifest = self.manifest(step)
        try:
            expected = {
                folder / name: (file["bytes"], file["sha256"])
                for name, file in manifest["files"].items()
            }
        except (AttributeError, KeyError, TypeError) as error:
            raise _damaged(folder / MANIFEST, "cannot be read", folder) from error
        for path, (size, _) in expected.items():
            if not path.is_file():
                raise _damaged(path, "is missing", folder)
            if path.stat().st_size != size:
                raise _damaged(path, "has another size than in its manifest", folder)
        found = self._checksums(list(expected))
        for (path, (_, sha256)), own in zip(expected.items(), found, strict=True):
            if own != sha256:
                raise _damaged(path, "has another checksum than in its manifest", folder)

    def _checksums(self, paths: Sequence[Path]) -> Iterable[str]:
        """Compute the checksums of files, of large ones by ``map_files``."""
        size = sum(path.stat().st_size for path in paths)
        return (self._map_files if size >= MANY_BYTES else map)(checksum, paths)

    @contextmanager
    def locked(self, step: Step) -> Iterator[None]:
        """Hold the step's lock; the system releases it if this process is killed.

        Raises:
            StoreError: If the store cannot be written.
        """
        path = self.root / ".locks" / f"{step.kind}-{step.key[:12]}"
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(path, f"that builds {step.kind} {step.name}"))
            except OSError as error:
                if is_disk_full(error, self.root):
                    raise
                raise not_writable(self.root, error) from error
            yield


def _read_manifest(step: Step, folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _damaged(path, "is missing", folder) from error
    except ValueError as error:  # not UTF-8, or not JSON
        raise _damaged(path, "cannot be read", folder) from error
    if not isinstance(manifest, dict) or manifest.get("key") != step.key:
        raise _damaged(path, "belongs to another artifact", folder)
    return manifest


def _damaged(path: Path, problem: str, folder: Path) -> ArtifactError:
    return ArtifactError(f"{path} {problem}; delete {folder} and run again")
