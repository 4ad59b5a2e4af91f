"""The mean over the parts of a target, and what has no parts."""

from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd.evaluation.loss_of_parts import LOSSES, LossOfParts

TASK = SimpleNamespace(name="halves")


def measured(folder, losses, parts, tokens):
    folder.mkdir()
    columns = {"id": [f"r{i}" for i in range(len(losses))], "loss": losses, "tokens": tokens}
    pq.write_table(pa.table({**columns, "part": parts}), folder / LOSSES)
    return folder


def results(tmp_path, parts):
    folders = {
        name: measured(tmp_path / name, [2.0, 6.0, 30.0], parts, [1, 3, 10])
        for name in ("target_loss", "target_loss_base")
    }
    return LossOfParts().results(folders, TASK)


def test_parts_count_alike_whatever_their_length(tmp_path):
    found = results(tmp_path, ["a", "a", "b"]).metrics
    assert found["headline"] == pytest.approx((8 / 4 + 30 / 10) / 2)


def test_one_part_is_enough(tmp_path):
    found = results(tmp_path, ["a", "a", "a"]).metrics
    assert found["headline"] == pytest.approx(38 / 14)


def test_what_was_not_measured_is_said(tmp_path):
    with pytest.raises(ValueError, match="set target_loss=held_out"):
        LossOfParts().results({}, TASK)
