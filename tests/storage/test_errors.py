"""Which errors are those of the store itself."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from gotd.storage.errors import StoreError, explained


def system(number, filename=None):
    return OSError(number, os.strerror(number), filename)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (system(errno.ENOSPC), "no space left in store while building it; free some space"),
        (system(errno.EDQUOT, "store/a"), "no space left in store"),
        (RuntimeError("write failed: No space left on device"), "no space left in store"),
        (system(errno.EROFS, "store/a/b"), "cannot write the store store: Read-only file system"),
        (system(errno.EACCES, b"store/a"), "store: Permission denied; choose another folder"),
        (PermissionError(13, "Failed to open local file 'store/a/b'"), "cannot write the store"),
    ],
)
def test_an_error_of_the_store_has_the_remedy(error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(StoreError, match=message) as caught,
        explained(Path("store"), " while building it"),
    ):
        raise error
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        system(errno.ENOSPC, "/elsewhere/a"),
        system(errno.EACCES, "stores/input.jsonl"),
        system(errno.EACCES),
        system(errno.ENOENT, "store/a"),
        ValueError("a row has no text"),
    ],
)
def test_an_error_of_an_input_passes_as_it_is(error, tmp_path):
    with pytest.raises(type(error)) as caught, explained(Path("store")):
        raise error
    assert caught.value is error
