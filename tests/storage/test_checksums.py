"""Checksums that are computed elsewhere are those of the files, and are used while they hold."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gotd.storage import artifacts, files
from gotd.storage.artifacts import Step, Store
from gotd.storage.errors import ArtifactError
from gotd.storage.files import know_checksums, known_checksum


class Elsewhere:
    """Maps as another process does, and notes the files."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, function: Callable[[Path], Any], paths: Iterable[Path]) -> Iterator[Any]:
        paths = list(paths)
        self.asked += [path.name for path in paths]
        found = [pickle.loads(pickle.dumps(function))(path) for path in paths]
        yield from pickle.loads(pickle.dumps(found))


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Note the files that are hashed in this process; those of `Elsewhere` are among them."""
    noted: list[str] = []
    own = files.checksum
    monkeypatch.setattr(files, "checksum", lambda path: noted.append(path.name) or own(path))
    return noted


def test_a_file_is_read_elsewhere_once_and_again_when_it_changes(tmp_path, reads):
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_text(path.name * 1000)
    assert sum(1 for _ in know_checksums(paths, Elsewhere())) == 3
    reads.clear()
    for path in paths:
        assert known_checksum(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert reads == []
    paths[1].write_text("x" * 1000)
    assert known_checksum(paths[1]) == hashlib.sha256(b"x" * 1000).hexdigest()
    assert reads == ["b"]


def test_a_file_that_changes_meanwhile_is_read_again(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def changing(function: Callable[[Path], Any], paths: Iterable[Path]) -> Iterator[Any]:
        for one in paths:
            result = function(one)
            one.write_bytes(b"new")
            yield result

    list(know_checksums([path], changing))
    assert known_checksum(path) == hashlib.sha256(b"new").hexdigest()


def made(parts: int = 3) -> Step:
    def build(folder: Path, _: Any) -> None:
        for number in range(parts):
            (folder / f"{number}.bin").write_bytes(bytes([number]) * 1000)

    return Step("kind", 1, "name", {"parts": parts}, build)


def test_large_artifacts_are_hashed_elsewhere_when_they_are_written_and_opened(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(artifacts, "MANY_BYTES", 2000)
    elsewhere = Elsewhere()
    folder = Store(tmp_path, map_files=elsewhere).get(made())
    written = Store(tmp_path).manifest(made())["files"]
    assert elsewhere.asked == ["0.bin", "1.bin", "2.bin"]
    for name, facts in written.items():
        assert facts["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
        assert facts["bytes"] == 1000
    elsewhere.asked.clear()
    Store(tmp_path, map_files=elsewhere).get(made())
    assert elsewhere.asked == ["0.bin", "1.bin", "2.bin"]
    elsewhere.asked.clear()
    Store(tmp_path, map_files=elsewhere).get(made(1))  # small: here
    assert elsewhere.asked == []


def test_damage_that_is_found_elsewhere_names_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "MANY_BYTES", 0)
    folder = Store(tmp_path).get(made())
    (folder / "1.bin").write_bytes(b"\x02" * 1000)
    with pytest.raises(ArtifactError, match=r"1\.bin has another checksum .*delete .* run again"):
        Store(tmp_path, map_files=Elsewhere()).get(made())
