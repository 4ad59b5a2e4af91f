"""An array in a file travels as its path; what was computed from it does not."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest

from gotd.storage.memmap import FileArray, create_array, open_array


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
