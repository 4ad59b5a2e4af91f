"""What is hashed is what is read: an input that changes meanwhile stops the run (K1)."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd.config.schemas import Chunking
from gotd.data import inputs, original_rows
from gotd.data.base import PinnedPart
from gotd.data.columns import Columns
from gotd.data.folder import Folder
from gotd.data.inputs import named_parts
from gotd.data.pool import write_pool
from gotd.pipeline.steps import pools
from gotd.storage.artifacts import Step, Store
from gotd.storage.files import known_checksum

OTHER = [{"text": f"a cat number {i} sleeps softly in house{i}"} for i in range(20)]


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def replaced(path: Path) -> None:
    other = write_rows(path.with_name("other"), OTHER)
    other.replace(path)


def copied_over(path: Path) -> None:
    shutil.copyfile(write_rows(path.with_name("other"), OTHER), path)


def appended(path: Path) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(OTHER[0]) + "\n")


def same_size_and_time(path: Path) -> None:
    status = path.stat()
    path.write_text(path.read_text("utf-8").replace("dog", "cat"), "utf-8")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES = [replaced, copied_over, appended, same_size_and_time]


@pytest.mark.parametrize("change", CHANGES)
def test_a_pool_that_changes_after_its_key_is_fixed_is_not_stored(here, monkeypatch, change):
    """A1: the rows of another file would be found under the key of this one."""
    stream = inputs.stream

    def change_first(path, *arguments):
        if path == here.pool:
            change(path)
        return stream(path, *arguments)

    monkeypatch.setattr(inputs, "stream", change_first)
    status, printed = here.select()
    assert status == 2
    assert "p has changed since it was read" in printed
    assert not [*(here.folder / "store" / "pool").glob("candidates-*/manifest.json")]
    monkeypatch.setattr(inputs, "stream", stream)
    assert here.select()[0] == 0
    read = {json.loads(line)["text"] for line in here.pool.read_text("utf-8").splitlines()}
    assert {row["text"] for row in here.rows()} <= read


def test_a_kill_after_the_change_leaves_no_shard_to_go_on_with(here, tmp_path, monkeypatch):
    monkeypatch.setattr("gotd.data.pool.SHARD_ROWS", 5)
    monkeypatch.setattr("gotd.data.json_lines.ROWS_PER_PIECE", 5, raising=False)
    (part,) = named_parts([str(here.pool)], Columns(), tmp_path / "record")
    pinned = PinnedPart(part, part.identity())
    replaced(here.pool)
    with pytest.raises(ValueError, match="has changed"):
        write_pool([pinned], tmp_path / "pool", Chunking("whole"))
    assert not [*(tmp_path / "pool").rglob("rows-*")]


def test_a_step_whose_files_change_while_it_is_built_is_not_stored(tmp_path):
    file, store = tmp_path / "model.bin", Store(tmp_path / "store")
    file.write_text("old")

    def parameters():
        return {"model": {"file": file.name, "sha256": known_checksum(file)}}

    def build(folder, _):
        (folder / "copy").write_text(file.read_text())
        file.write_text("new")

    step = Step("model", 1, "m", parameters(), build, again=parameters)
    with pytest.raises(ValueError, match="model.bin changed while it was read"):
        store.get(step)
    assert not [*(tmp_path / "store" / "model").iterdir()]


@pytest.mark.parametrize("role", ["candidates", "pretraining"])
def test_a_passage_file_of_a_sweep_that_changes_is_refused(tmp_path, role):
    path = tmp_path / "candidates" / "a.parquet"
    path.parent.mkdir()
    for number in (0, 1):
        pq.write_table(
            pa.table(
                {
                    "id": [f"{i}" for i in range(40)],
                    "text": [f"text {number} {i}" for i in range(40)],
                }
            ),
            path,
        )
        if not number:
            source = Folder(str(tmp_path))
            step = pools.pool("candidates", getattr(source, role)(), Chunking("whole"))
    with pytest.raises(ValueError, match="a has changed since it was read"):
        Store(tmp_path / "store").get(step)
    assert not [*(tmp_path / "store").rglob("manifest.json")]


def test_the_manifest_has_the_checksum_of_what_was_read(here, monkeypatch):
    """A2: it was computed again after the work."""
    before = known_checksum(here.pool)
    checked = original_rows.check_unchanged

    def change_afterwards(part, identity):
        checked(part, identity)
        if len(calls := [*calls_of, 1]) == 2:
            appended(here.pool)
        calls_of[:] = calls

    calls_of: list[int] = []
    monkeypatch.setattr(original_rows, "check_unchanged", change_afterwards)
    assert here.select()[0] == 0
    manifest = json.loads((here.folder / "o" / "manifest.json").read_text("utf-8"))
    assert known_checksum(here.pool) != before
    assert [part["sha256"] for part in manifest["inputs"]["candidates"]] == [before]


def test_an_input_that_is_deleted_after_reading_is_named(here, monkeypatch):
    """B1: the message blamed --out."""
    checked = original_rows.check_unchanged

    def delete_first(part, identity):
        here.pool.unlink(missing_ok=True)
        checked(part, identity)

    monkeypatch.setattr(original_rows, "check_unchanged", delete_first)
    status, printed = here.select()
    assert status == 2
    assert "p.jsonl" in printed.splitlines()[-1]
    assert "--out" not in printed.splitlines()[-1]
    assert sorted(path.name for path in here.folder.iterdir()) == ["store", "t.txt"]


def test_a_model_folder_that_changes_while_it_is_copied_is_not_stored(tmp_path, monkeypatch):
    from gotd.pipeline.steps import base_model_reads

    model = tmp_path / "m"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_text("old")

    def copy(_, __, out):
        shutil.copytree(model, out, dirs_exist_ok=True)
        (model / "model.safetensors").write_text("new")

    monkeypatch.setattr(base_model_reads, "copy_model", copy)
    step = base_model_reads.named_model(str(model))
    with pytest.raises(ValueError, match="changed while it was read"):
        Store(tmp_path / "store").get(step)
    assert not [*(tmp_path / "store").rglob("manifest.json")]
