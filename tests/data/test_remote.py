"""URLs: copied from a file system in memory, and again only what has changed."""

from __future__ import annotations

import json
import logging
import sys

import fsspec
import pytest

from gotd.data import remote
from gotd.data.base import SourceUnavailable
from gotd.data.columns import Columns
from gotd.data.inputs import named_parts


@pytest.fixture
def bucket():
    system = fsspec.filesystem("memory")
    system.pipe("/bucket/pool/a.jsonl", b'{"text": "a"}\n{"text": "b"}\n')
    system.pipe("/bucket/pool/deep/c.csv", b"question,answer\nwhat,this\n")
    system.pipe("/bucket/pool/notes.md", b"no rows")
    yield system
    system.rm("/bucket", recursive=True)


def texts(tmp_path, *names):
    parts = named_parts(names, Columns(), tmp_path / "store" / "hub.json")
    return {
        part.label: [text for piece in part.pieces() for text in piece["text"].to_pylist()]
        for part in parts
    }


def test_a_folder_a_pattern_and_a_file_are_read(bucket, tmp_path, caplog):
    everything = {"a": ["a", "b"], "c": ["what\nthis"]}
    with caplog.at_level(logging.INFO):
        assert texts(tmp_path, "memory://bucket/pool/") == everything
    assert "memory://bucket/pool/: notes.md is left out: its name ends in no known" in caplog.text
    assert texts(tmp_path, "memory://bucket/pool/*.jsonl") == {"a": ["a", "b"]}
    assert texts(tmp_path, "memory://bucket/pool/**/*.csv") == {"c": ["what\nthis"]}
    assert texts(tmp_path, "memory://bucket/pool/a.jsonl") == {"a": ["a", "b"]}


def test_only_what_has_changed_is_copied_again(bucket, tmp_path, monkeypatch):
    copied = []
    fetch = type(bucket).get_file

    def counted(self, source, target, **more):
        copied.append(source)
        return fetch(self, source, target, **more)

    monkeypatch.setattr(type(bucket), "get_file", counted)
    url = "memory://bucket/pool"
    texts(tmp_path, url)
    assert sorted(copied) == ["/bucket/pool/a.jsonl", "/bucket/pool/deep/c.csv"]
    texts(tmp_path, url)
    assert len(copied) == 2
    bucket.pipe("/bucket/pool/a.jsonl", b'{"text": "new"}\n')
    bucket.rm("/bucket/pool/deep/c.csv")
    assert texts(tmp_path, url) == {"a": ["new"]}
    assert len(copied) == 3


def test_a_copy_is_known_by_its_content(bucket, tmp_path):
    one, other = (
        named_parts(["memory://bucket/pool/a.jsonl"], Columns(), tmp_path / name / "hub.json")[0]
        for name in ("one", "other")
    )
    assert one.identity() == other.identity()


def test_a_copy_that_was_cut_short_is_not_used(bucket, tmp_path, monkeypatch):
    def cut(self, source, target, **more):
        with open(target, "wb") as file:  # noqa: PTH123
            file.write(b'{"te')
        raise ConnectionError("the line is dead")

    with monkeypatch.context() as patch:
        patch.setattr(type(bucket), "get_file", cut)
        with pytest.raises(SourceUnavailable, match="cannot be read .the line is dead.; check"):
            texts(tmp_path, "memory://bucket/pool/a.jsonl")
    assert texts(tmp_path, "memory://bucket/pool/a.jsonl") == {"a": ["a", "b"]}


def test_what_is_not_there_is_one_line(bucket, tmp_path):
    for url in ("memory://bucket/none/", "memory://bucket/pool/*.parquet"):
        with pytest.raises(FileNotFoundError, match="refers to nothing; check the address"):
            texts(tmp_path, url)
    with pytest.raises(SourceUnavailable, match="nothing://x cannot be read .*Protocol not known"):
        texts(tmp_path, "nothing://x")


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(SourceUnavailable, match=r"s3://b/x.jsonl cannot be read .*install s3fs"):
        texts(tmp_path, "s3://b/x.jsonl")


def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path, monkeypatch):
    class Hostile:
        def isfile(self, path):
            return path != "b"

        def find(self, path):
            return ["b/../../evil.jsonl"]

    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda url: (Hostile(), "b"))
    with pytest.raises(SourceUnavailable, match="is not inside b"):
        texts(tmp_path, "memory://b")


def test_a_damaged_record_of_versions_is_read_again(bucket, tmp_path):
    texts(tmp_path, "memory://bucket/pool")
    (record,) = (tmp_path / "store").rglob(remote.VERSIONS)
    assert set(json.loads(record.read_text())) == {"a.jsonl", "deep/c.csv"}
    record.write_text("{")
    assert len(texts(tmp_path, "memory://bucket/pool")) == 2
