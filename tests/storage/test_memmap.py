"""An array in a file travels as its path; what was computed from it does not."""

from __future__ import annotations

import os
import pickle
import resource

import numpy as np
import pytest

from gotd.storage import memmap
from gotd.storage.memmap import FileArray, create_array, open_array


@pytest.fixture
def _first_map():
    memmap._raise_limit.cache_clear()
    yield
    memmap._raise_limit.cache_clear()


def test_it_pickles_as_its_path_and_writes_are_seen(tmp_path):
    create_array(tmp_path / "a.npy", (1000, 3), "<f4")
    array = open_array(tmp_path / "a.npy", "r+")
    assert len(pickle.dumps(array)) < 300
    copy = pickle.loads(pickle.dumps(array))
    assert isinstance(copy, FileArray)
    copy[7] = [1, 2, 3]
    assert array[7].tolist() == [1, 2, 3]
    assert np.load(tmp_path / "a.npy")[7].tolist() == [1, 2, 3]


def test_a_slice_or_a_sum_pickles_as_its_numbers(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(12.0).reshape(4, 3))
    array = open_array(tmp_path / "a.npy")
    for part in (array[1:3], array + 1, array[:, 0]):
        copy = pickle.loads(pickle.dumps(part))
        assert type(copy) is np.ndarray
        np.testing.assert_array_equal(copy, part)


def test_what_is_open_to_read_cannot_be_written(tmp_path):
    create_array(tmp_path / "a.npy", (3,), "<f8")
    copy = pickle.loads(pickle.dumps(open_array(tmp_path / "a.npy")))
    with pytest.raises(ValueError, match="read-only"):
        copy[0] = 1


def test_rows_are_written_into_the_file_and_seen_in_the_map(tmp_path):
    array = create_array(tmp_path / "a.npy", (1000, 3), "<f4")
    copy = pickle.loads(pickle.dumps(array))
    for start, count in ((0, 2), (340, 7), (999, 1), (500, 0)):
        rows = np.arange(3.0 * count).reshape(count, 3) + start  # float64
        copy.write_rows(start, rows)
        assert array[start : start + count].tolist() == rows.tolist()
    assert np.count_nonzero(np.load(tmp_path / "a.npy").any(axis=1)) == 10


@pytest.mark.parametrize(("start", "shape"), [(-1, (2, 3)), (999, (2, 3)), (0, (2, 4)), (0, (2,))])
def test_rows_that_do_not_fit_are_refused(tmp_path, start, shape):
    array = create_array(tmp_path / "a.npy", (1000, 3), "<f4")
    with pytest.raises(ValueError, match="do not fit"):
        array.write_rows(start, np.ones(shape))
    for other in (array[1:], open_array(tmp_path / "a.npy")):
        with pytest.raises(ValueError, match="only a whole file"):
            other.write_rows(0, np.ones((2, 3)))
    assert not array.any()


def test_a_full_disk_leaves_no_array(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        create_array(tmp_path / "a.npy", (10,), "<f8")
    assert not (tmp_path / "a.npy").exists()


@pytest.mark.usefixtures("few_open_files", "_first_map")
def test_more_arrays_can_be_open_than_the_soft_limit_allows(tmp_path):
    arrays = [create_array(tmp_path / f"{number}.npy", (3,), "<f8") for number in range(60)]
    arrays += [open_array(tmp_path / f"{number}.npy") for number in range(60)]
    assert len(arrays) == 120


@pytest.mark.usefixtures("few_open_files", "_first_map")
def test_too_many_arrays_are_one_line(tmp_path, monkeypatch):
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(memmap, "MOST_OPEN", (soft,))
    arrays = [create_array(tmp_path / "a.npy", (3,), "<f8")]
    with pytest.raises(OSError, match=rf"a.npy cannot be opened: {soft} files.*ulimit -Hn"):
        arrays += [open_array(tmp_path / "a.npy") for _ in range(60)]
    arrays.clear()
    with pytest.raises(FileNotFoundError):
        open_array(tmp_path / "absent.npy")


@pytest.mark.usefixtures("_first_map")
def test_a_limit_is_never_lowered_and_one_that_is_refused_is_left(monkeypatch):
    asked = []

    def set_limit(_, limits):
        asked.append(limits)
        if limits[0] > 10240:
            raise ValueError("not allowed")

    unlimited = resource.RLIM_INFINITY
    cases = {
        (256, unlimited): [(1 << 20, unlimited), (10240, unlimited)],
        (20000, unlimited): [(1 << 20, unlimited)],
        (unlimited, unlimited): [],
        (1024, 4096): [(4096, 4096)],
        (4096, 4096): [],
        (2 << 20, 2 << 20): [],
    }
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    for limits, expected in cases.items():
        monkeypatch.setattr(resource, "getrlimit", lambda _, limits=limits: limits)
        memmap._raise_limit.cache_clear()
        asked.clear()
        memmap._raise_limit()
        assert asked == expected, limits
